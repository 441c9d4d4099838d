"""No-op source changes: each moves addresses, none changes what the module does.

Code that never runs, bytes between functions, another order of functions or of objects: each moves hash chains,
alignments and page boundaries, and with them a few instructions.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from harness.errors import SetupError
from harness.kernel.subsystems import Part

_INCLUDE = re.compile(r"^#include .*\n", re.M)
_STATIC = re.compile(r"^(?P<head>static (?!inline\b)[^;{}=#]*?\([^;{}=#]*\))\n\{\n.*?^\}\n", re.M | re.S)
_IF, _ENDIF = re.compile(r"^#\s*if", re.M), re.compile(r"^#\s*endif", re.M)
_OBJECTS = re.compile(r"^(?P<name>\w+-y)\s*:?=\s*(?P<list>(?:[^\n\\]|\\\n)*)", re.M)


def _first_file(folder: Path, part: Part) -> Path:
    """Return the file of the part's fault path, or another where a kernel has no such file."""
    file = folder / part.first
    return file if file.exists() else min(folder.glob("*.c"))


def _insert_before_fault_path(folder: Path, part: Part, inserted: str) -> None:
    """Insert lines after the last #include of the file of the fault path."""
    file = _first_file(folder, part)
    text = file.read_text()
    end = max(match.end() for match in _INCLUDE.finditer(text))
    file.write_text(text[:end] + inserted + text[end:])


def comment(folder: Path, part: Part, size: int) -> None:
    """Add comment lines before the fault path: only line numbers move."""
    _insert_before_fault_path(folder, part, "\n/* nothing" + "\n * at all" * size + "\n */\n")


def dead_function(folder: Path, part: Part, size: int) -> None:
    """Add a function that nothing calls, before the fault path."""
    terms = " ^ ".join(f"n % {3 + 2 * number}" for number in range(size))
    code = f"\nstatic noinline __used int odp_harness_dead_{size}(int n)\n{{\n\treturn {terms};\n}}\n"
    _insert_before_fault_path(folder, part, code)


def moved_function(folder: Path, part: Part, size: int) -> None:
    """Move a static function of the fault path's file to its end, and declare it where it was."""
    file = _first_file(folder, part)
    text = file.read_text()
    every = [match for match in _STATIC.finditer(text) if not _conditional(text, match)]
    if not every:
        raise SetupError(f"no static function in {part.folder}/{file.name}")
    match = every[(size - 1) % len(every)]
    declared = f"{match['head']};\n"
    file.write_text(f"{text[: match.start()]}{declared}{text[match.end() :]}\n{match[0]}")


def _conditional(text: str, match: re.Match[str]) -> bool:
    """Return True if a function is in an #if, or contains one."""
    opened = len(_IF.findall(text, 0, match.start())) - len(_ENDIF.findall(text, 0, match.start()))
    return bool(opened or _IF.search(match[0]))


def padding(folder: Path, part: Part, size: int) -> None:
    """Add bytes that nothing jumps to, before the fault path."""
    code = f'\nasm(".pushsection .text; .skip {16 * size}, 0xcc; .popsection");\n'
    _insert_before_fault_path(folder, part, code)


def link_order(folder: Path, part: Part, size: int) -> None:
    """Link the module's objects in another order: reversed, rotated by `size` - 1."""
    makefile = folder / "Makefile"
    text = makefile.read_text()
    match = _OBJECTS.search(text)
    if match is None:
        raise SetupError(f"no list of objects in {part.folder}/Makefile")
    objects = [word for word in match["list"].replace("\\\n", " ").split() if word.endswith(".o")]
    rotated = objects[::-1]
    first = (size - 1) % len(rotated)
    line = f"{match['name']} := {' '.join(rotated[first:] + rotated[:first])}"
    makefile.write_text(text[: match.start()] + line + text[match.end() :])


KINDS: tuple[Callable[[Path, Part, int], None], ...] = (
    comment,
    dead_function,
    moved_function,
    padding,
    link_order,
)


@dataclass(frozen=True)
class NoopChange:
    """A no-op change: a kind and a size (from 1)."""

    kind: Callable[[Path, Part, int], None]
    size: int

    def __str__(self) -> str:
        return f"{self.kind.__name__} {self.size}"

    def apply(self, folder: Path, part: Part) -> None:
        """Apply it to the part's folder."""
        self.kind(folder, part, self.size)


def variants(number: int) -> tuple[NoopChange, ...]:
    """Return `number` different no-op changes, cycling through the kinds."""
    return tuple(NoopChange(KINDS[n % len(KINDS)], 1 + n // len(KINDS)) for n in range(number))


BAND = tuple(NoopChange(kind, size) for kind, size in zip(KINDS, (3, 2, 2, 11, 1), strict=True))
"""No-op changes that the noise band is measured with; `variants` is for testing it."""

CONFIRM = tuple(NoopChange(kind, size) for kind, size in zip(KINDS, (71, 61, 5, 7, 3), strict=True))
"""More of them: to widen the band of a metric that moved, and for more builds of the patched source."""
