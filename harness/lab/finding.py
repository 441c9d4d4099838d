"""What a check of a lab host found, and the ways to judge a command's output."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace

OK, NOTE, MISSING, UNKNOWN = "ok", "note", "missing", "unknown"
SOFT_ROCE, CARD = "soft-roce", "card"
BOTH = (SOFT_ROCE, CARD)
MAX_TEXT = 160


@dataclass(frozen=True)
class Finding:
    """One fact about a host. `note` needs no action; `missing` and `unknown` keep the devices in `needed` from running.

    `hint` is what to do about it, `package` Debian's name of what brings it.
    """

    section: str
    name: str
    state: str
    text: str
    hint: str = ""
    package: str = ""
    needed: tuple[str, ...] = ()

    @property
    def in_the_way(self) -> bool:
        """Say if it keeps a device from running."""
        return bool(self.needed) and self.state in (MISSING, UNKNOWN)


Judged = tuple[str, str]
"""State and text."""
Judge = Callable[[str], Judged]


@dataclass(frozen=True)
class Row:
    """One command for sh(1), read-only and of no rights, and how its output is judged.

    A command that fails is judged by its name alone: missing where the row is `needed`, else a note.
    """

    section: str
    name: str
    command: str
    judge: Judge
    hint: str = ""
    package: str = ""
    needed: tuple[str, ...] = ()

    def finding(self, status: int, output: str, facts: dict[str, str]) -> Finding:
        """Judge an output; `facts` fill in the hint and the package ({release})."""
        if status:
            last = (output.strip().splitlines() or ["not there"])[-1]
            state, text = (MISSING if self.needed else NOTE), last
        else:
            state, text = self.judge(output.strip())
        found = Finding(self.section, self.name, state, clean(text), needed=self.needed)
        if state in (OK, NOTE):
            return found
        package = self.package.format(**facts)
        return replace(found, hint=self.hint or f"apt-get install {package}", package=package)


def clean(text: str) -> str:
    """Make a host's text fit for a terminal: one line, printable, of limited length."""
    line = "".join(each if each.isprintable() else " " for each in " ".join(text.split()))
    return line if len(line) <= MAX_TEXT else line[: MAX_TEXT - 3] + "..."


def note(output: str) -> Judged:
    """Take any output for a note."""
    return NOTE, output or "none"


def present(output: str) -> Judged:
    """Take any output for what is needed; none is missing."""
    return (OK, output) if output else (MISSING, "not there")


def one_of(*good: str, otherwise: str = MISSING, says: str = "") -> Judge:
    """Judge by a word; `says` explains another one."""

    def judge(output: str) -> Judged:
        return (OK, output) if output in good else (otherwise, f"{output or 'nothing'}{says and ': ' + says}")

    return judge


def at_least(minimum: float, unit: str, scale: float = 1) -> Judge:
    """Judge a number, which is output divided by `scale`."""

    def judge(output: str) -> Judged:
        match = re.search(r"\d+(\.\d+)?", output)
        if not match:
            return UNKNOWN, output or "no number"
        value = float(match[0]) / scale
        text = f"{value:.1f} {unit}"
        return (OK, text) if value >= minimum else (MISSING, f"{text}; {minimum:.1f} {unit} are needed")

    return judge


def version_at_least(minimum: tuple[int, ...]) -> Judge:
    """Judge a dotted version."""

    def judge(output: str) -> Judged:
        numbers = tuple(
            int(each) for each in re.findall(r"\d+", output.split()[-1] if output else "")[: len(minimum)]
        )
        wanted = ".".join(map(str, minimum))
        return (OK, output) if numbers >= minimum else (MISSING, f"{output}; {wanted} is needed")

    return judge


def selected(output: str) -> str:
    """Return the word in brackets, as sysfs marks what is chosen."""
    match = re.search(r"\[(\w+)\]", output)
    return match[1] if match else output


def install_command(findings: Iterable[Finding]) -> str:
    """Return the apt-get command for all packages that findings name, empty without any."""
    packages = sorted({each.package for each in findings if each.package})
    return f"apt-get install {' '.join(packages)}" if packages else ""
