"""Which lines of the modules under test the cases of some plans reach, case by case.

The modules are the distribution's source (or a changed copy of it) built here, since a line table is needed; what ran
is QEMU's own log (machine/exec_log.py), so nothing about a case changes with it.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from harness.campaign.runs import RegressRequest, kept, modules_with_lines
from harness.campaign.tree_diff import TreeDiff
from harness.kernel import line_tables
from harness.kernel.line_tables import Lines
from harness.kernel.packages import Kernel
from harness.kernel.subsystems import (
    FOLDERS,
    Part,
)
from harness.plan.session import Session

Reached = dict[str, set[int]]
"""Lines by file."""


@dataclass(frozen=True)
class Coverage:
    """By module: its line tables, and what each case ran of it."""

    tables: Mapping[str, Lines]
    cases: Mapping[str, Mapping[str, Reached]]

    def reached(self, module: str) -> Reached:
        """What all cases together ran."""
        found: Reached = {}
        for case in self.cases.values():
            for file, each in case.get(module, {}).items():
                found.setdefault(file, set()).update(each)
        return found

    def files(self, module: str) -> list[tuple[str, int, int]]:
        """The module's own files: name, lines that ran, lines that have code."""
        reached = self.reached(module)
        return [
            (file, len(reached.get(file, set()) & code), len(code))
            for file, code in sorted(self.tables[module].code.items())
            if own(file)
        ]

    def functions(self, module: str) -> list[tuple[str, str, int, int]]:
        """Its functions: file, name, lines that ran, lines that have code."""
        reached = self.reached(module)
        return [
            (each.file, each.name, len(reached.get(each.file, set()) & each.lines), len(each.lines))
            for each in sorted(
                self.tables[module].functions, key=lambda each: (each.file, min(each.lines, default=0))
            )
            if own(each.file) and each.lines
        ]

    def of_file(self, path: str) -> tuple[set[int], set[int]]:
        """Lines of a file of the tree that have code in any module, and those that ran in one."""
        code: set[int] = set()
        ran: set[int] = set()
        for module, table in self.tables.items():
            name = _name(module, path)
            code |= table.code.get(name, set())
            ran |= set().union(*(case.get(module, {}).get(name, ()) for case in self.cases.values()))
        return code, ran


def _name(module: str, path: str) -> str:
    """A file of the tree as the module's tables name it: its own files by their name only."""
    folder, _, name = path.rpartition("/")
    return name if folder == FOLDERS[module] else path


def own(file: str) -> bool:
    """Whether it is a source file of a module, not a header."""
    return file.endswith(".c")


def measure(
    session: Session, question: RegressRequest, kernel: Kernel, tree: Path, parts: Sequence[Part], name: str
) -> Coverage:
    """Run the question's cases once each with the modules of `tree`; the answers are kept by content."""
    files, _, tables = modules_with_lines(session, kernel, tree, parts)
    folder = kept(session, question.exact, kernel, files, parts, name)
    return of_run(folder, tree, parts, tables)


def of_run(folder: Path, tree: Path, parts: Sequence[Part], tables: Mapping[str, Path]) -> Coverage:
    """What the cases of a run ran of modules built of `tree`, by their line tables."""
    folders = {module: tree / part.folder for part in parts for module in part.every}
    read = {module: line_tables.read(path, folders[module]) for module, path in tables.items()}
    cases: dict[str, dict[str, Reached]] = {}
    for path in sorted((folder / "logs").glob("*.blocks.json")):
        told = json.loads(path.read_text())
        cases[told["case"]] = {
            module: read[module].ran(offsets) for module, offsets in told["ran"].items() if module in read
        }
    return Coverage(read, cases)


def lcov(coverage: Coverage, parts: Sequence[Part]) -> str:
    """For genhtml and editors. Ref: geninfo(1), tracefile format."""
    out: list[str] = []
    for part in parts:
        for module in filter(coverage.tables.__contains__, part.every):
            reached = coverage.reached(module)
            for file, code in sorted(coverage.tables[module].code.items()):
                if own(file):
                    seen = reached.get(file, set())
                    counts = [f"DA:{line},{int(line in seen)}" for line in sorted(code)]
                    out += [f"TN:{module}", f"SF:{part.folder}/{file}", *counts, "end_of_record"]
    return "\n".join(out) + "\n"


@dataclass(frozen=True)
class Touched:
    """What a change touches, by path in the tree: `new` lines as they are with it, `old` ones as they were without it.

    Where lines are only put in, the old ones are those beside them. `gone` are the old ones that nothing replaces.
    """

    new: Mapping[str, set[int]]
    old: Mapping[str, set[int]]
    gone: Mapping[str, set[int]] = field(default_factory=dict)


def touched(differing: Iterable[TreeDiff]) -> Touched:
    """What differs of sources and headers."""
    new: dict[str, set[int]] = {}
    old: dict[str, set[int]] = {}
    gone: dict[str, set[int]] = {}
    for file in differing:
        path = str(file.path)
        blocks = (block for block in file.matcher.get_opcodes() if block[0] != "equal")
        for _, was, was_end, now, now_end in blocks:
            new.setdefault(path, set()).update(range(now + 1, now_end + 1))
            beside = (was, was_end) if was_end > was else (was - 1, was + 1)
            old.setdefault(path, set()).update(range(beside[0] + 1, beside[1] + 1))
            if now == now_end:
                gone.setdefault(path, set()).update(range(was + 1, was_end + 1))
    return Touched(new, old, gone)


def reaching(coverage: Coverage, wanted: Mapping[str, set[int]]) -> set[str]:
    """The plans of which a case runs one of these lines."""
    return {
        case.split("/")[0]
        for case, modules in coverage.cases.items()
        for module, reached in modules.items()
        if any(reached.get(_name(module, path), set()) & each for path, each in wanted.items())
    }


def unreached(coverage: Coverage, wanted: Mapping[str, set[int]]) -> list[tuple[str, int, int]]:
    """Of these lines those that have code and that no case ran: path, first and last line of each run."""
    missing: list[tuple[str, int, int]] = []
    for path, each in sorted(wanted.items()):
        code, ran = coverage.of_file(path)
        missing += [(path, first, last) for first, last in _runs(each & code - ran)]
    return missing


def _runs(numbers: Iterable[int]) -> list[tuple[int, int]]:
    found: list[tuple[int, int]] = []
    for number in sorted(numbers):
        if found and number == found[-1][1] + 1:
            found[-1] = (found[-1][0], number)
        else:
            found.append((number, number))
    return found
