"""Every exception of the product.

    HarnessError
      UsageError       the user's input: plan, option, patch file             exit 2
      SetupError       we could not build, boot, fetch or connect             exit 3
      Unsupported      a stated need is missing here                          skip
      GuestError       the kernel under test failed                           exit 1
        Crash          oops, BUG, panic
        Hang           no answer in time, hung task, lockup, RCU stall
        LockdepReport  lock order and context reports
        KasanReport    memory errors found by KASAN
        Warn           WARN and warnings that a plan does not expect
        LeakReport     objects that a case left behind

An error prints as one headline, then its evidence, then what to try next.
"""

from __future__ import annotations

from collections.abc import Sequence

EXIT_INTERRUPTED = 130


class HarnessError(Exception):
    """Base of all: `evidence` are lines to show (command, status, output, log), `hint` says what to try."""

    exit_status = 3

    def __init__(self, headline: str, evidence: Sequence[str] = (), hint: str = "") -> None:
        super().__init__(headline)
        self.headline = headline
        self.evidence = tuple(evidence)
        self.hint = hint

    def render(self) -> str:
        """The error as people read it: headline, indented evidence, hint."""
        lines = [self.headline, *(f"  {line}" for line in self.evidence)]
        if self.hint:
            lines.append(f"  try: {self.hint}")
        return "\n".join(lines)

    @property
    def line(self) -> str:
        """The error in a line: headline and hint."""
        return "; ".join(filter(None, (self.headline, self.hint)))

    def __str__(self) -> str:
        return self.render()


class UsageError(HarnessError):
    """The user's input is wrong: a plan, an option, a file."""

    exit_status = 2


class SetupError(HarnessError):
    """We could not build, boot, fetch or connect; says nothing about the kernel under test."""


class Unsupported(HarnessError):
    """A stated need is missing here: a skip, or a failure with --no-skip."""

    exit_status = 0


class GuestError(HarnessError):
    """The kernel under test failed."""

    exit_status = 1


class Crash(GuestError):
    """An oops, BUG or panic."""


class Hang(GuestError):
    """No answer in time, a hung task, a lockup or an RCU stall."""


class LockdepReport(GuestError):
    """A report of the lock validator."""


class KasanReport(GuestError):
    """A memory error found by KASAN."""


class Warn(GuestError):
    """A WARN of the kernel that no plan expects."""


class LeakReport(GuestError):
    """Objects that outlived their case."""
