"""Every exception of the product.

    HarnessError
      UsageError       the user's input: plan, option, patch file             exit 2
      SetupError       we could not build, boot, fetch, connect               exit 3
        CommandError   a program on a host failed (host/local.py)
        HostKeyError   a host's key is unknown, changed or revoked (host/ssh_keys.py)
        UnknownName    a layout has no such field (wire/ifc.py)
        ShortBuffer    a field lies past the end of its buffer (wire/ifc.py)
      Unsupported      a stated need is missing here                          skip (failure with --no-skip)
      GuestError       the kernel under test failed                           exit 1
        Crash          oops, BUG, panic
        Hang           no reply in time, hung task, lockup, RCU stall
        LockdepReport  lock order and context reports
        KasanReport    memory errors found by KASAN
        Warn           WARN that a plan does not expect
        LeakReport     objects that outlived their case
    FirmwareError      inside connectx only: becomes a command status (connectx/status.py)

An error prints one headline, then its evidence, then a hint.
"""

from __future__ import annotations

from collections.abc import Sequence

EXIT_INTERRUPTED = 130


class HarnessError(Exception):
    """Base of all: `evidence` are lines (command, exit status, last output, log path), `hint` is what to try."""

    exit_status = 3

    def __init__(self, headline: str, evidence: Sequence[str] = (), hint: str = "") -> None:
        super().__init__(headline)
        self.headline = headline
        self.evidence = tuple(evidence)
        self.hint = hint

    def render(self) -> str:
        """Write the error for people: headline, indented evidence, hint."""
        lines = [self.headline, *(f"  {line}" for line in self.evidence)]
        if self.hint:
            lines.append(f"  try: {self.hint}")
        return "\n".join(lines)

    @property
    def line(self) -> str:
        """Headline and hint in one line."""
        return "; ".join(filter(None, (self.headline, self.hint)))

    def __str__(self) -> str:
        return self.render()


class UsageError(HarnessError):
    """The user's input is wrong: a plan, an option, a file."""

    exit_status = 2


class SetupError(HarnessError):
    """We could not build, boot, fetch or connect: no result about the kernel under test."""


class Unsupported(HarnessError):
    """A stated need is missing here: a skip, or a failure with --no-skip."""

    exit_status = 0


class GuestError(HarnessError):
    """The kernel under test failed."""

    exit_status = 1


class Crash(GuestError):
    """An oops, BUG or panic."""


class Hang(GuestError):
    """No reply in time, a hung task, a lockup or an RCU stall."""


class LockdepReport(GuestError):
    """A report of the lock validator."""


class KasanReport(GuestError):
    """A memory error found by KASAN."""


class Warn(GuestError):
    """A WARN of the kernel that no plan expects."""


class LeakReport(GuestError):
    """Objects that outlived their case."""
