"""Finds what went wrong in what a kernel said on its console."""

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
    """Where a symptom stands in the lines: first and last, and whether its end was seen."""

    symptom: Symptom
    first: int
    last: int
    whole: bool


def scan(lines: Iterable[str]) -> tuple[Symptom, ...]:
    """Every report in a console log or the output of dmesg, in order, the last one also when it is cut short.

    Lines without a timestamp are somebody else's if any line has one.
    """
    return tuple(report.symptom for report in reports(list(lines)))


def distinct(symptoms: Iterable[Symptom]) -> tuple[Symptom, ...]:
    """The first of each fingerprint: a lockup is reported again and again."""
    return tuple({symptom.fingerprint: symptom for symptom in reversed(tuple(symptoms))}.values())[::-1]


def symptom_error(symptom: Symptom) -> GuestError:
    """The exception that says what `symptom` says."""
    error = next((kind.error for kind in KINDS if kind.name == symptom.kind), GuestError)
    return error(symptom.headline, symptom.excerpt, hint=f"fingerprint: {symptom.fingerprint}")


def reports(lines: Sequence[str], stamped: bool | None = None) -> Iterator[Report]:
    """`scan` with places. `stamped` says whether the kernel's lines have timestamps; None looks."""
    said = _kernel_lines(lines, stamped)
    position = 0
    while position < len(said):
        kind = _kind(said[position][1])
        if kind is None:
            position += 1
            continue
        first = _with_prologue(said, position)
        last, whole = _extent(said, position, kind)
        symptom = _symptom(kind, [text for _, text in said[first : last + 1]], position - first)
        yield Report(symptom, said[first][0], said[last][0], whole)
        position = last + 1


class Console:
    """The console log of a machine, a file that grows."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._told = 0
        self._stamped: bool | None = None

    def mark(self) -> int:
        """How many bytes there are now; what is said from here on is `since` this mark."""
        try:
            return self.path.stat().st_size
        except FileNotFoundError:
            return 0

    def since(self, mark: int = 0) -> tuple[Symptom, ...]:
        """Every report after a mark, the last one also when it is cut short."""
        return tuple(report.symptom for report in reports(self._lines(mark), self._stamped))

    def news(self, settle: bool = False) -> tuple[Symptom, ...]:
        """The reports that ended since the last call; with `settle`, the one going on as well.

        What was told is not told again: a report told half by `settle` is over.
        """
        raw = self._read(self._told)
        lines = raw[: len(raw) if settle else raw.rfind(b"\n") + 1].splitlines(keepends=True)
        told, kept = [], _open_prologue(texts := self._decode(lines))
        for report in reports(texts, self._stamped):
            if not (report.whole or settle):
                kept = report.first
                break
            told.append(report.symptom)
            kept = max(kept, report.last + 1)
        self._told += sum(len(line) for line in lines[: len(lines) if settle else kept])
        return tuple(told)

    def tail(self, count: int = 20) -> tuple[str, ...]:
        """The last lines, without timestamps, for the evidence of an error."""
        lines = self._lines(max(0, self.mark() - 400 * count))
        return tuple(_PREFIX.sub("", _ESCAPES.sub("", line), count=1) for line in lines[-count:])

    def before(self, headline: str, count: int = 8) -> tuple[str, ...]:
        """The lines that stand before a headline, anybody's, without timestamps."""
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
    """The kernel's own lines, each with its index: timestamps, callers, levels and escapes removed."""
    said, others = [], []
    for index, line in enumerate(lines):
        text = _ESCAPES.sub("", line).rstrip()
        # not at the start only: a prompt or a half line of a program may stand before it
        match = _PREFIX.search(text)
        if match:
            said.append((index, text[match.end() :]))
        else:
            others.append((index, text))
    return said if said or stamped else others


def _kind(text: str) -> Kind | None:
    if not _ANY.search(text):
        return None
    return next(kind for kind, headline, _ in _TABLE if headline.search(text))


def _with_prologue(said: Sequence[tuple[int, str]], position: int) -> int:
    """Where the report of the headline at `position` begins: at the line that announces it, if any."""
    for before in range(position - 1, max(-1, position - 1 - _PROLOGUE_LINES), -1):
        text = said[before][1]
        if _PROLOGUE.search(text):
            return before
        if _kind(text):
            break
    return position


def _open_prologue(texts: Sequence[str]) -> int:
    """How many of `texts` may be forgotten: all, but for an announcement whose headline is yet to come."""
    for index in range(len(texts) - 1, max(-1, len(texts) - 1 - _PROLOGUE_LINES), -1):
        if _PROLOGUE.search(_PREFIX.sub("", _ESCAPES.sub("", texts[index]), count=1)):
            return index
    return len(texts)


def _extent(said: Sequence[tuple[int, str]], position: int, kind: Kind) -> tuple[int, bool]:
    """The last line of the report that begins at `position`, and whether that is its end."""
    ends = next(ends for row, _, ends in _TABLE if row is kind)
    if ends is None:
        return position, True
    for here in range(position + 1, len(said)):
        text = said[here][1]
        other = _kind(text)
        if other is not None and other.name not in kind.absorbs:
            return max(position, _with_prologue(said, here) - 1), True
        if here - position >= REPORT_LINES:
            return here, True
        if ends.search(text):
            after = said[here + 1 : here + 1 + MORE_LINES]
            if not kind.more or not any(re.search(kind.more, line) for _, line in after):
                return here, not kind.more or len(after) == MORE_LINES
    return len(said) - 1, False


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
    """The top frames of the first stack, the instruction pointer's first; clones are their origin."""
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
    """The function that a line of a trace names; empty for plumbing and for what is no such line."""
    frame = _FRAME.fullmatch(text)
    if frame and frame[1]:
        return ""  # found on the stack, not by unwinding it
    match = _INSTRUCTION.match(text)
    name = _CLONE.sub("", frame[2] if frame else match[1] if match else "")
    return "" if PLUMBING.fullmatch(name) else name
