"""Diff coverage: the lines that a patch changes, each marked with whether a case executes it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from harness.campaign.coverage import Coverage
from harness.campaign.tree_diff import TreeDiff

EXECUTED, NOT_EXECUTED = "executed", "not executed"
CONTEXT = 3


@dataclass(frozen=True)
class Line:
    """A line of a diff: `sign` is `+`, `-` or a blank; `old` and `new` are its numbers, 0 on the side that lacks it.

    `mark` is EXECUTED or NOT_EXECUTED; empty where there is no code, or coverage was not measured.
    """

    sign: str
    old: int
    new: int
    text: str
    mark: str = ""


@dataclass(frozen=True)
class Hunk:
    """Changed lines that are close to each other, with their context."""

    file: str
    lines: tuple[Line, ...]


def hunks(differing: Iterable[TreeDiff], patched: Coverage | None) -> tuple[Hunk, ...]:
    """Return what differs as hunks; `patched` is the coverage of the patched side."""
    result: list[Hunk] = []
    for file in differing:
        marks = _marks(str(file.path), patched)
        groups = file.matcher.get_grouped_opcodes(CONTEXT)
        result += [Hunk(str(file.path), tuple(_group(file, group, marks))) for group in groups]
    return tuple(result)


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


def _marks(path: str, patched: Coverage | None) -> dict[int, str]:
    code, executed = patched.of_file(path) if patched else (set(), set())
    return {line: EXECUTED if line in executed else NOT_EXECUTED for line in code}
