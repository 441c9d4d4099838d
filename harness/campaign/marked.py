"""What a change changes, line by line, each with whether a case ran it: for pages."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from harness.campaign.coverage import Coverage
from harness.kernel.build import NAMES, SUFFIXES
from harness.kernel.parts import HEADERS, Part

RAN, NOT = "ran", "not"
CONTEXT = 3


@dataclass(frozen=True)
class Line:
    """A line of a difference: `sign` is `+`, `-` or a blank; its numbers without and with the change, 0 on the side
    that lacks it; `mark` is RAN or NOT, or nothing where there is no code or nobody looked.
    """

    sign: str
    old: int
    new: int
    text: str
    mark: str = ""


@dataclass(frozen=True)
class Piece:
    """Changed lines that are near each other, and those around them."""

    file: str
    lines: tuple[Line, ...]


def pieces(stock: Path, tree: Path, parts: Sequence[Part], with_it: Coverage | None) -> tuple[Piece, ...]:
    """What of the parts' source, and of our headers, differs in `tree`; `with_it` says what ran there."""
    found: list[Piece] = []
    for folder in (*(part.folder for part in parts), HEADERS.rstrip("/")):
        names = {path.relative_to(root) for root in (stock, tree) for path in _files(root / folder)}
        for name in sorted(names):
            found += _of_file(stock, tree, name, with_it)
    return tuple(found)


def _files(folder: Path) -> Iterator[Path]:
    every = (path for path in folder.rglob("*") if path.suffix in SUFFIXES or path.name in NAMES)
    return (path for path in every if path.is_file())


def _of_file(stock: Path, tree: Path, name: Path, with_it: Coverage | None) -> Iterator[Piece]:
    before, after = (_lines(root / name) for root in (stock, tree))
    if before == after:
        return
    marks = _marks(name.name, with_it)
    matcher = difflib.SequenceMatcher(None, before, after, autojunk=False)
    for group in matcher.get_grouped_opcodes(CONTEXT):
        lines: list[Line] = []
        for kind, was, was_end, now, now_end in group:
            if kind == "equal":
                pairs = zip(range(was, was_end), range(now, now_end), strict=True)
                lines += [Line(" ", old + 1, new + 1, after[new]) for old, new in pairs]
                continue
            lines += [Line("-", old + 1, 0, before[old]) for old in range(was, was_end)]
            lines += [
                Line("+", 0, new + 1, after[new], marks.get(new + 1, "")) for new in range(now, now_end)
            ]
        yield Piece(str(name), tuple(lines))


def _lines(path: Path) -> list[str]:
    return path.read_text(errors="replace").splitlines() if path.is_file() else []


def _marks(file: str, with_it: Coverage | None) -> dict[int, str]:
    marks: dict[int, str] = {}
    for module, table in with_it.tables.items() if with_it else ():
        ran = with_it.reached(module).get(file, set()) if with_it else set()
        for line in table.code.get(file, ()):
            marks[line] = RAN if line in ran or marks.get(line) == RAN else NOT
    return marks
