"""Measure which lines of the modules under test the cases of some plans execute, case by case.

The modules are built from the distribution's source (or a changed copy), since a line table is needed; the executed
blocks are QEMU's own log (machine/exec_log.py), so measuring changes nothing in a case.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from harness.campaign.builds import build_modules
from harness.campaign.question import RegressRequest
from harness.campaign.result_cache import ModuleRun, cached_run
from harness.campaign.tree_diff import TreeDiff
from harness.kernel import line_tables
from harness.kernel.line_tables import Lines
from harness.kernel.packages import Kernel
from harness.kernel.subsystems import (
    FOLDERS,
    Part,
)
from harness.plan.session import Session

Executed = dict[str, set[int]]
"""Lines by file."""


@dataclass(frozen=True)
class Coverage:
    """By module its line table, and by case and module the lines that it executes."""

    tables: Mapping[str, Lines]
    cases: Mapping[str, Mapping[str, Executed]]

    def executed(self, module: str) -> Executed:
        """Return the lines of a module that any case executes."""
        result: Executed = {}
        for case in self.cases.values():
            for file, each in case.get(module, {}).items():
                result.setdefault(file, set()).update(each)
        return result

    def files(self, module: str) -> list[tuple[str, int, int]]:
        """List the module's own files: name, executed lines, lines that have code."""
        executed = self.executed(module)
        return [
            (file, len(executed.get(file, set()) & code), len(code))
            for file, code in sorted(self.tables[module].code.items())
            if own(file)
        ]

    def functions(self, module: str) -> list[tuple[str, str, int, int]]:
        """List its functions: file, name, executed lines, lines that have code."""
        executed = self.executed(module)
        return [
            (each.file, each.name, len(executed.get(each.file, set()) & each.lines), len(each.lines))
            for each in sorted(
                self.tables[module].functions, key=lambda each: (each.file, min(each.lines, default=0))
            )
            if own(each.file) and each.lines
        ]

    def of_file(self, path: str) -> tuple[set[int], set[int]]:
        """Return the lines of a file of the tree that have code in any module, and those that are executed in one."""
        code: set[int] = set()
        executed: set[int] = set()
        for module, table in self.tables.items():
            name = _name(module, path)
            code |= table.code.get(name, set())
            executed |= set().union(*(case.get(module, {}).get(name, ()) for case in self.cases.values()))
        return code, executed


def _name(module: str, path: str) -> str:
    """Name a file of the tree as the module's tables do: its own files by their name only."""
    folder, _, name = path.rpartition("/")
    return name if folder == FOLDERS[module] else path


def own(file: str) -> bool:
    """Return True if it is a source file of a module, not a header."""
    return file.endswith(".c")


def measure(
    session: Session, request: RegressRequest, kernel: Kernel, tree: Path, parts: Sequence[Part], name: str
) -> Coverage:
    """Run each case of the request once with the modules of `tree`; records are cached by content."""
    built = build_modules(session, kernel, tree, parts)
    folder = cached_run(session, ModuleRun(request.exact, kernel, built.files, parts, name))
    return of_run(folder, tree, parts, built.line_tables)


def of_run(folder: Path, tree: Path, parts: Sequence[Part], tables: Mapping[str, Path]) -> Coverage:
    """Read the coverage of a run with modules built from `tree`; `tables` are their line tables."""
    folders = {module: tree / part.folder for part in parts for module in part.every}
    read = {module: line_tables.read(path, folders[module]) for module, path in tables.items()}
    cases: dict[str, dict[str, Executed]] = {}
    for path in sorted((folder / "logs").glob("*.blocks.json")):
        log = json.loads(path.read_text())
        cases[log["case"]] = {
            module: read[module].ran(offsets) for module, offsets in log["ran"].items() if module in read
        }
    return Coverage(read, cases)


def lcov(coverage: Coverage, parts: Sequence[Part]) -> str:
    """Format as a tracefile, for genhtml and editors. Ref: geninfo(1)"""
    out: list[str] = []
    for part in parts:
        for module in filter(coverage.tables.__contains__, part.every):
            executed = coverage.executed(module)
            for file, code in sorted(coverage.tables[module].code.items()):
                if own(file):
                    lines = executed.get(file, set())
                    counts = [f"DA:{line},{int(line in lines)}" for line in sorted(code)]
                    out += [f"TN:{module}", f"SF:{part.folder}/{file}", *counts, "end_of_record"]
    return "\n".join(out) + "\n"


@dataclass(frozen=True)
class ChangedLines:
    """Lines that a patch changes, by path in the tree: `new` ones of the patched file, `old` ones of the baseline.

    Where lines are only added, the old ones are their neighbours. `removed` are old lines that nothing replaces.
    """

    new: Mapping[str, set[int]]
    old: Mapping[str, set[int]]
    removed: Mapping[str, set[int]] = field(default_factory=dict)


def changed_lines(differing: Iterable[TreeDiff]) -> ChangedLines:
    """Return the changed lines of sources and headers."""
    new: dict[str, set[int]] = {}
    old: dict[str, set[int]] = {}
    removed: dict[str, set[int]] = {}
    for file in differing:
        path = str(file.path)
        blocks = (block for block in file.matcher.get_opcodes() if block[0] != "equal")
        for _, was, was_end, now, now_end in blocks:
            new.setdefault(path, set()).update(range(now + 1, now_end + 1))
            first, end = (was, was_end) if was_end > was else (was - 1, was + 1)
            old.setdefault(path, set()).update(range(first + 1, end + 1))
            if now == now_end:
                removed.setdefault(path, set()).update(range(was + 1, was_end + 1))
    return ChangedLines(new, old, removed)


def plans_executing(coverage: Coverage, lines: Mapping[str, set[int]]) -> set[str]:
    """Name the plans of which a case executes one of these lines."""
    return {
        case.split("/")[0]
        for case, modules in coverage.cases.items()
        for module, executed in modules.items()
        if any(executed.get(_name(module, path), set()) & each for path, each in lines.items())
    }


def not_executed(coverage: Coverage, lines: Mapping[str, set[int]]) -> list[tuple[str, int, int]]:
    """List those of these lines that have code and that no case executes: path, first and last of each range."""
    missing: list[tuple[str, int, int]] = []
    for path, each in sorted(lines.items()):
        code, executed = coverage.of_file(path)
        missing += [(path, first, last) for first, last in _ranges(each & code - executed)]
    return missing


def _ranges(numbers: Iterable[int]) -> list[tuple[int, int]]:
    result: list[tuple[int, int]] = []
    for number in sorted(numbers):
        if result and number == result[-1][1] + 1:
            result[-1] = (result[-1][0], number)
        else:
            result.append((number, number))
    return result
