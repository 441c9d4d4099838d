"""The arguments with which pytest runs plans for us: for `odp-harness run`, and for whoever needs a run made."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from harness.errors import UsageError


@dataclass(frozen=True)
class RunRequest:
    """A run: what to run (files or folders), where results go, and the options of plan/plugin.py by name."""

    plans: Sequence[Path]
    results: Path
    kernels: Sequence[str] = ()
    devices: Sequence[str] = ()
    values: dict[str, object] = field(default_factory=dict)
    flags: Sequence[str] = ()
    expression: str = ""
    jobs: int = 1

    def arguments(self) -> list[str]:
        """For pytest.main or `python -m pytest`."""
        given = ["-p", "harness.plan.plugin", "-p", "no:terminal", "-p", "no:cacheprovider", "-o", "addopts="]
        # Nothing is captured: what a view draws while a case runs is for people now.
        given += ["--capture=no", f"--results={self.results}"]
        given += [f"--kernel={series}" for series in self.kernels]
        given += [f"--device={device}" for device in self.devices]
        given += [
            f"--{name.replace('_', '-')}={value}" for name, value in self.values.items() if value is not None
        ]
        given += list(self.flags)
        given += ["-k", self.expression] if self.expression else []
        given += ["-n", str(self.jobs)] if self.jobs > 1 else []
        return [*given, *map(str, self.plans)]


def check_expression(text: str) -> None:
    """UsageError if `text` is no expression of pytest's -k: words with and, or, not, and parentheses."""
    said = re.sub(r"[^\s()]+", lambda word: word[0] if word[0] in ("and", "or", "not") else "True", text)
    try:
        compile(said.strip() or "True", "-k", "eval")
    except SyntaxError as error:
        hint = "words with and, or, not, and parentheses: -k 'odp-write and not connectx-7'"
        raise UsageError(f"-k {text!r} is no expression", hint=hint) from error
