"""Build modules from a tree; unchanged objects come from the build of the distribution's source."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from harness.errors import SetupError
from harness.kernel.build import build
from harness.kernel.packages import Kernel
from harness.kernel.source import source
from harness.kernel.subsystems import (
    HEADERS,
    Part,
)
from harness.plan.session import Session


@dataclass(frozen=True)
class BuiltModules:
    """Modules by their path on a payload disk, the compiler, and by module its line table (if requested)."""

    files: Mapping[str, Path]
    compiler: str
    line_tables: Mapping[str, Path]


def copy_sources(stock: Path, parts: Sequence[Part], into: Path) -> None:
    """Copy the parts' source, and the headers that shadow the kernel's own, to a tree that may be edited."""
    for folder in (*(part.folder for part in parts), HEADERS.rstrip("/")):
        shutil.copytree(stock / folder, into / folder, dirs_exist_ok=True)


def build_modules(
    session: Session,
    kernel: Kernel,
    tree: Path,
    parts: Sequence[Part],
    lines: bool = True,
    clean: bool = False,
) -> BuiltModules:
    """Build the parts' modules from a tree.

    `lines` writes line tables too; the modules are the same bytes without. `clean` compiles every file.
    """
    files: dict[str, Path] = {}
    tables: dict[str, Path] = {}
    compiler = ""
    stock = None if clean else source(kernel, session.archive)
    for part in parts:
        built = build(
            tree / part.folder, kernel, session.archive, include=tree / HEADERS, lines=lines, like=stock
        )
        compiler = built.compiler
        tables |= {name: table for name, table in built.lines.items() if name in part.every}
        for name in part.modules:
            if name not in built.modules:
                raise SetupError(f"{part.folder} has built no {name}", [", ".join(built.modules)])
        files |= {f"modules/{name}.ko": built.modules[name] for name in part.every if name in built.modules}
    return BuiltModules(files, compiler, tables)
