"""Map the instructions of a module to source lines, by the line tables of its build.

Ref: DWARF 5, 6.2; binutils' objdump --dwarf=decodedline, nm -S
"""

from __future__ import annotations

import bisect
import itertools
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from harness.kernel.build import SECTIONS

_HEADING = re.compile(r"^(?:CU: )?(?P<file>\S+):$")
_ROW = re.compile(r"^(?P<name>\S+)\s+(?P<line>\d+|-)\s+0x(?P<address>[0-9a-f]+)\b")
_SYMBOL = re.compile(r"^(?P<start>[0-9a-f]{16}) (?P<size>[0-9a-f]{16}) [tT] (?P<name>\S+)$")
_SPAN = 0x1000_0000


@dataclass(frozen=True)
class Function:
    """A function: name, file, and its lines with code, without those of functions inlined into it."""

    name: str
    file: str
    lines: frozenset[int]


@dataclass
class Lines:
    """The line tables of one module.

    `starts` are the addresses where another line begins, in order; `places` has for each all its (file, line):
    inlined code and its caller. `code` are the lines with code by file, as the source tree names it (files of the
    module's folder by their name only); `functions` are the module's own.
    """

    starts: list[int] = field(default_factory=list)
    places: list[list[tuple[str, int]]] = field(default_factory=list)
    code: dict[str, set[int]] = field(default_factory=dict)
    functions: list[Function] = field(default_factory=list)

    def ran(self, offsets: Mapping[str, Iterable[int]]) -> dict[str, set[int]]:
        """Look up the lines of the instructions at these offsets by section: {file: lines}."""
        lines_of: dict[str, set[int]] = {}
        for section, each in offsets.items():
            for offset in each:
                at = bisect.bisect_right(self.starts, SECTIONS[section] + offset) - 1
                for file, line in self.places[at] if at >= 0 else ():
                    lines_of.setdefault(file, set()).add(line)
        return lines_of


def files(path: Path) -> set[str]:
    """List the files that the tables name: those of the module's folder by their name only."""
    headings = map(_HEADING.match, path.read_text(errors="replace").splitlines())
    return {_named(heading["file"]) for heading in headings if heading}


def read(path: Path, folder: Path) -> Lines:
    """Read the tables that kernel/build.py wrote; the source in `folder` shows where a function ends."""
    rows: list[tuple[int, str, int]] = []
    symbols: list[tuple[int, int, str]] = []
    file = ""
    for text in path.read_text(errors="replace").splitlines():
        symbol = _SYMBOL.match(text)
        if symbol:
            symbols.append((int(symbol["start"], 16), int(symbol["size"], 16), symbol["name"]))
            continue
        heading = _HEADING.match(text)
        if heading:
            file = _named(heading["file"])
            continue
        row = _ROW.match(text)
        if row and int(row["address"], 16) >= _SPAN:
            line = 0 if row["line"] == "-" else int(row["line"])
            # A table may come back to a file without a heading: its row then has the name alone.
            if PurePosixPath(file).name != row["name"]:
                file = row["name"]
            rows.append((int(row["address"], 16), file, line))
    made = Lines()
    for address, same in itertools.groupby(sorted(rows, key=lambda row: row[0]), key=lambda row: row[0]):
        made.starts.append(address)
        # A line 0 ends a table: what follows has no line.
        made.places.append([(name, line) for _, name, line in same if line])
        for name, line in made.places[-1]:
            made.code.setdefault(name, set()).add(line)
    made.functions = list(_functions(made, sorted(symbols), folder))
    return made


def _functions(lines: Lines, symbols: list[tuple[int, int, str]], folder: Path) -> Iterable[Function]:
    """Collect the functions; parts that the compiler split off (`.cold`, `.part.0`) belong to their origin."""
    lines_of: dict[tuple[str, str], set[int]] = {}
    begins: dict[tuple[str, str], int] = {}
    for start, size, name in symbols:
        first, end = (bisect.bisect_left(lines.starts, at) for at in (start, start + size))
        own = [place for places in lines.places[first:end] for place in places]
        if size and own and not name.startswith(("__pfx_", "__cfi_")):
            known = (name.partition(".")[0], own[0][0])
            if "." not in name:
                begins[known] = own[0][1]
            lines_of.setdefault(known, set()).update(line for where, line in own if where == known[1])
    ends = {file: _ends(folder / file) for _, file in begins}
    for (name, file), start in begins.items():
        end = next((line for line in ends[file] if line >= start), start)
        yield Function(name, file, frozenset(line for line in lines_of[name, file] if start <= line <= end))


def _ends(file: Path) -> list[int]:
    """List the lines that end a function in the kernel's coding style."""
    if not file.is_file():
        return []
    lines = file.read_text(errors="replace").splitlines()
    return [number for number, line in enumerate(lines, 1) if line == "}"]


def _named(path: str) -> str:
    """Name a file as the source tree does: /build/ is the module's folder, headers are below include/."""
    for mark in ("/include/", "/arch/"):
        if mark in path:
            return mark[1:] + path.rpartition(mark)[2]
    return PurePosixPath(path).name
