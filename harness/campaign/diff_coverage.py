"""What a change changes, line by line, each with whether a case ran it: for pages."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from harness.campaign.coverage import Coverage
from harness.campaign.tree_diff import TreeDiff

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
class Hunk:
    """Changed lines that are near each other, and those around them."""

    file: str
    lines: tuple[Line, ...]


def pieces(differing: Iterable[TreeDiff], with_it: Coverage | None) -> tuple[Hunk, ...]:
    """What differs, in pieces; `with_it` says what ran with the change."""
    found: list[Hunk] = []
    for file in differing:
        marks = _marks(str(file.path), with_it)
        groups = file.matcher.get_grouped_opcodes(CONTEXT)
        found += [Hunk(str(file.path), tuple(_group(file, group, marks))) for group in groups]
    return tuple(found)


def _group(
    file: TreeDiff, group: Iterable[tuple[str, int, int, int, int]], marks: Mapping[int, str]
) -> Iterator[Line]:
    for kind, was, was_end, now, now_end in group:
        if kind == "equal":
            for old, new in zip(range(was, was_end), range(now, now_end), strict=True):
                yield Line(" ", old + 1, new + 1, file.after[new])
            continue
        for old in range(was, was_end):
            yield Line("-", old + 1, 0, file.before[old])
        for new in range(now, now_end):
            yield Line("+", 0, new + 1, file.after[new], marks.get(new + 1, ""))


def _marks(path: str, with_it: Coverage | None) -> dict[int, str]:
    code, ran = with_it.of_file(path) if with_it else (set(), set())
    return {line: RAN if line in ran else NOT for line in code}
