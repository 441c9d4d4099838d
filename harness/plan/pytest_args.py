"""The arguments with which pytest runs plans for us: for `odp-harness run`, and for campaigns."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from harness.errors import UsageError
from harness.plan import options


@dataclass(frozen=True)
class RunRequest:
    """A run: which plans (files or folders), where results go, and values of plan/options.py OPTIONS by name.

    `flags` are further arguments of pytest's own, as -x.
    """

    plans: Sequence[Path]
    results: Path
    kernels: Sequence[str] = ()
    devices: Sequence[str] = ()
    values: dict[str, object] = field(default_factory=dict)
    flags: Sequence[str] = ()
    expression: str = ""
    jobs: int = 1

    def arguments(self) -> list[str]:
        """Return the arguments for pytest.main or `python -m pytest`."""
        argv = ["-p", "harness.plan.plugin", "-p", "no:terminal", "-p", "no:cacheprovider", "-o", "addopts="]
        # Nothing is captured: what a view draws while a case runs is for people now.
        argv += ["--capture=no"]
        argv += options.arguments(
            {"results": self.results, "kernel": self.kernels, "device": self.devices, **self.values}
        )
        argv += list(self.flags)
        argv += ["-k", self.expression] if self.expression else []
        argv += ["-n", str(self.jobs)] if self.jobs > 1 else []
        return [*argv, *map(str, self.plans)]


def check_expression(text: str) -> None:
    """Raise UsageError if `text` is no expression of pytest's -k: words with and, or, not, and parentheses."""
    expression = re.sub(
        r"[^\s()]+", lambda word: word[0] if word[0] in ("and", "or", "not") else "True", text
    )
    try:
        compile(expression.strip() or "True", "-k", "eval")
    except SyntaxError as error:
        hint = "words with and, or, not, and parentheses: -k 'odp-write and not connectx-7'"
        raise UsageError(f"-k {text!r} is no expression", hint=hint) from error
