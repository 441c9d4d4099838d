"""Find reports of kernel errors in a console log."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from harness.errors import GuestError
from harness.machine.symptoms import KINDS, MORE_LINES, PLUMBING, Kind
from harness.values.symptom import Symptom

FINGERPRINT_FRAMES = 4
EXCERPT_LINES = 80
REPORT_LINES = 400

# Level, time and caller before a message; with CONFIG_PRINTK_CALLER the caller is a task or a CPU.
# Ref: Linux 7.3 kernel/printk/printk.c, print_syslog, print_time, print_caller
_PREFIX = re.compile(r"(?:<\d+>)?\[ *\d+\.\d{6}\](?:\[ *[TC]\d+\])? ?")
_ESCAPES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]|\x1b[()][A-Z0-9]|\x1bc|\r")
_FRAME = re.compile(
    r"\s*(?:\[<[\da-fx]+>\] )?(\? )?([A-Za-z_][\w.]*)\+0x[\da-f]+/0x[\da-f]+"
    r"(?: \[[^\]]+\])?(?: \([A-Z]+\))?\s*"
)
_INSTRUCTION = re.compile(r"(?:RIP: 0010:|pc : |RIP: )([A-Za-z_][\w.]*)\+0x[\da-f]+/0x[\da-f]+")
_CLONE = re.compile(r"(?:\.(?:isra|constprop|part|cold|llvm|lto_priv)(?:\.\d+)?)+$")
_NUMBERS = re.compile(r"0x[\da-f]+|\b[\da-f]{8,}\b|\d+", re.IGNORECASE)
_PROLOGUE = re.compile(r"^-+\[ cut here \]-+$|^={20,}$|^-{20,}$")
_PROLOGUE_LINES = 6

_TABLE = [(kind, re.compile(kind.headline), re.compile(kind.ends) if kind.ends else None) for kind in KINDS]
_ANY = re.compile("|".join(f"(?:{kind.headline})" for kind in KINDS))


@dataclass(frozen=True)
class Report:
    """A symptom with its first and last line; `whole` if its end was seen."""

    symptom: Symptom
    first: int
    last: int
    whole: bool


def scan(lines: Iterable[str]) -> tuple[Symptom, ...]:
    """Find every report in a console log or the output of dmesg, in order, a last one that is cut short too.

    Lines without a timestamp are not the kernel's if any line has one.
    """
    return tuple(report.symptom for report in reports(list(lines)))


def distinct(symptoms: Iterable[Symptom]) -> tuple[Symptom, ...]:
    """Keep the first of each fingerprint: a lockup is reported repeatedly."""
    return tuple({symptom.fingerprint: symptom for symptom in reversed(tuple(symptoms))}.values())[::-1]


def symptom_error(symptom: Symptom) -> GuestError:
    """Make the exception of a symptom."""
    error = next((kind.error for kind in KINDS if kind.name == symptom.kind), GuestError)
    return error(symptom.headline, symptom.excerpt, hint=f"fingerprint: {symptom.fingerprint}")


def reports(lines: Sequence[str], stamped: bool | None = None) -> Iterator[Report]:
    """Yield the reports of `scan` with their lines. `stamped`: the kernel's lines have timestamps, None if unknown."""
    kernel = _kernel_lines(lines, stamped)
    position = 0
    while position < len(kernel):
        kind = _kind(kernel[position][1])
        if kind is None:
            position += 1
            continue
        first = _with_prologue(kernel, position)
        last, whole = _extent(kernel, position, kind)
        symptom = _symptom(kind, [text for _, text in kernel[first : last + 1]], position - first)
        yield Report(symptom, kernel[first][0], kernel[last][0], whole)
        position = last + 1


class Console:
    """The console log of a machine, a file that grows."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._reported = 0
        self._stamped: bool | None = None

    def mark(self) -> int:
        """Return the size of the log in bytes, for a later `since`."""
        try:
            return self.path.stat().st_size
        except FileNotFoundError:
            return 0

    def since(self, mark: int = 0) -> tuple[Symptom, ...]:
        """Find every report after a mark, a last one that is cut short too."""
        return tuple(report.symptom for report in reports(self._lines(mark), self._stamped))

    def news(self, settle: bool = False) -> tuple[Symptom, ...]:
        """Return the reports that ended since the last call; with `settle`, an unfinished one as well.

        No report is returned twice: one that `settle` returned unfinished is over.
        """
        raw = self._read(self._reported)
        lines = raw[: len(raw) if settle else raw.rfind(b"\n") + 1].splitlines(keepends=True)
        symptoms, end = [], _open_prologue(texts := self._decode(lines))
        for report in reports(texts, self._stamped):
            if not (report.whole or settle):
                end = report.first
                break
            symptoms.append(report.symptom)
            end = max(end, report.last + 1)
        self._reported += sum(len(line) for line in lines[: len(lines) if settle else end])
        return tuple(symptoms)

    def tail(self, count: int = 20) -> tuple[str, ...]:
        """Return the last lines without timestamps, as evidence of an error."""
        lines = self._lines(max(0, self.mark() - 400 * count))
        return tuple(_PREFIX.sub("", _ESCAPES.sub("", line), count=1) for line in lines[-count:])

    def before(self, headline: str, count: int = 8) -> tuple[str, ...]:
        """Return the lines before a headline, not only the kernel's, without timestamps."""
        lines = [_PREFIX.sub("", _ESCAPES.sub("", line), count=1) for line in self._lines(0)]
        at = next((index for index, line in enumerate(lines) if headline in line), 0)
        return tuple(lines[max(0, at - count) : at])

    def _lines(self, mark: int) -> list[str]:
        return self._decode(self._read(mark).splitlines())

    def _read(self, mark: int) -> bytes:
        try:
            with self.path.open("rb") as file:
                file.seek(mark, os.SEEK_SET)
                return file.read()
        except FileNotFoundError:
            return b""

    def _decode(self, lines: Iterable[bytes]) -> list[str]:
        texts = [line.decode("utf-8", "replace").rstrip("\r\n") for line in lines]
        if any(_PREFIX.search(text) for text in texts):
            self._stamped = True
        return texts


def _kernel_lines(lines: Sequence[str], stamped: bool | None) -> list[tuple[int, str]]:
    """Pick the kernel's own lines, each with its index: timestamps, callers, levels and escapes removed."""
    kernel, others = [], []
    for index, line in enumerate(lines):
        text = _ESCAPES.sub("", line).rstrip()
        # not at the start only: a prompt or an unfinished line of a program may stand before it
        match = _PREFIX.search(text)
        if match:
            kernel.append((index, text[match.end() :]))
        else:
            others.append((index, text))
    return kernel if kernel or stamped else others


def _kind(text: str) -> Kind | None:
    if not _ANY.search(text):
        return None
    return next(kind for kind, headline, _ in _TABLE if headline.search(text))


def _with_prologue(lines: Sequence[tuple[int, str]], position: int) -> int:
    """Find the begin of the report of the headline at `position`: at the line that announces it, if any."""
    for before in range(position - 1, max(-1, position - 1 - _PROLOGUE_LINES), -1):
        text = lines[before][1]
        if _PROLOGUE.search(text):
            return before
        if _kind(text):
            break
    return position


def _open_prologue(texts: Sequence[str]) -> int:
    """Count the lines that are done with: all before an announcement whose headline is yet to come."""
    for index in range(len(texts) - 1, max(-1, len(texts) - 1 - _PROLOGUE_LINES), -1):
        if _PROLOGUE.search(_PREFIX.sub("", _ESCAPES.sub("", texts[index]), count=1)):
            return index
    return len(texts)


def _extent(lines: Sequence[tuple[int, str]], position: int, kind: Kind) -> tuple[int, bool]:
    """Find the last line of the report whose headline is at `position`, and whether that is its end."""
    ends = next(ends for row, _, ends in _TABLE if row is kind)
    if ends is None:
        return position, True
    for here in range(position + 1, len(lines)):
        text = lines[here][1]
        other = _kind(text)
        if other is not None and other.name not in kind.absorbs:
            return max(position, _with_prologue(lines, here) - 1), True
        if here - position >= REPORT_LINES:
            return here, True
        if ends.search(text):
            after = lines[here + 1 : here + 1 + MORE_LINES]
            if not kind.more or not any(re.search(kind.more, line) for _, line in after):
                return here, not kind.more or len(after) == MORE_LINES
    return len(lines) - 1, False


def _symptom(kind: Kind, lines: Sequence[str], head: int) -> Symptom:
    parts = [kind.name]
    what = next(filter(None, (re.search(kind.what, line) for line in lines)), None) if kind.what else None
    if what:
        parts.append(_NUMBERS.sub("N", what[1]).strip())
    name = " ".join(parts)
    frames = " < ".join(_frames(kind, lines[head:])) if kind.frames else ""
    fingerprint = f"{name}: {frames}" if frames else name
    return Symptom(kind.name, lines[head].strip(), fingerprint, tuple(lines[:EXCERPT_LINES]))


def _frames(kind: Kind, lines: Sequence[str]) -> list[str]:
    """Collect the top frames of the first stack, the instruction pointer's first; clones count as their origin."""
    if kind.frames_after:
        begin = next((i for i, line in enumerate(lines) if re.search(kind.frames_after, line)), 0)
        lines = lines[begin:]
    frames: list[str] = []
    interrupt = False
    for line in lines:
        text = line.strip()
        if text in ("<IRQ>", "</IRQ>"):
            interrupt = kind.task_only and text == "<IRQ>"
        elif (frames and text in ("", "</TASK>")) or len(frames) == FINGERPRINT_FRAMES:
            break
        elif (name := _function(text)) and not interrupt and frames[-1:] != [name]:
            frames.append(name)
    return frames


def _function(text: str) -> str:
    """Return the function that a line of a trace names; empty for PLUMBING and for other lines."""
    frame = _FRAME.fullmatch(text)
    if frame and frame[1]:
        return ""  # found on the stack, not by unwinding it
    match = _INSTRUCTION.match(text)
    name = _CLONE.sub("", frame[2] if frame else match[1] if match else "")
    return "" if PLUMBING.fullmatch(name) else name
