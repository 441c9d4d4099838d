"""List what of a patch is not tested: files outside of the tested modules, lines that no case executes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path, PurePosixPath

from harness.campaign import coverage
from harness.campaign.coverage import Coverage, own
from harness.campaign.tree_diff import TreeDiff
from harness.kernel import line_tables
from harness.kernel.subsystems import FOLDERS, HEADERS

MAX_NOT_EXECUTED = 10
"""Places that are listed."""


def in_no_module(changed: Sequence[TreeDiff], tables: Iterable[tuple[str, Path]]) -> list[str]:
    """List the changed source files that no line table names; `tables` are by module."""
    built = {f"{FOLDERS[module]}/{name}" for module, table in tables for name in line_tables.files(table)}
    return [path for path in (str(file.path) for file in changed) if own(path) and path not in built]


def outside(paths: Iterable[str]) -> tuple[str, ...]:
    """Return an entry for each changed file that is in no tested part."""
    return tuple(f"{path}: outside of the tested modules" for path in paths)


def header_note(changed: Sequence[TreeDiff]) -> list[str]:
    """Return a note on changed headers: modules that are not rebuilt were compiled with the old ones."""
    headers = [str(file.path) for file in changed if str(file.path).startswith(HEADERS)]
    if not headers:
        return []
    rest = "mlx5_core, ib_cm and the rest of the kernel are not rebuilt: beware of changed structures"
    return [f"{', '.join(headers)} changed, but {rest}"]


def not_executed(executed: Coverage, lines: Mapping[str, set[int]], noun: str) -> list[str]:
    """Return in a line which of these lines no case executes; empty if all are executed."""
    places = []
    for path, first, last in coverage.not_executed(executed, lines):
        file = path if path.startswith(HEADERS) else PurePosixPath(path).name
        places.append(f"{file}:{first}" + (f"-{last}" if last > first else ""))
    more = [f"and {len(places) - MAX_NOT_EXECUTED} more"] if len(places) > MAX_NOT_EXECUTED else []
    listed = ", ".join([*places[:MAX_NOT_EXECUTED], *more])
    return [f"{noun} not executed by any case: {listed}"] if places else []
