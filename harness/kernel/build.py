"""Build modules from source for a kernel.

A build is an entry of the cache, keyed by sources, kernel, toolchain and flags.
"""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from harness.debian import Archive
from harness.errors import SetupError, UsageError
from harness.host import CommandError
from harness.kernel.packages import Kernel
from harness.kernel.toolchain import Toolchain, toolchain
from harness.store import digest

RECIPE = 5
SUFFIXES = (".c", ".h")
NAMES = ("Kbuild", "Makefile")
HERE = Path(__file__).parent
# Sparse, and for kernel-doc, which W=1 runs, the whole of Perl.
CHECKERS = ("sparse", "perl")
# Two folders deep: a tracepoint's header may be named from include/trace/ as ../../PLACE IN THE TREE/x_trace.h, which
# the compiler also tries from here. Ref: Linux 7.3 drivers/infiniband/core/cm_trace.h, TRACE_INCLUDE_PATH
INCLUDE = "odp/include"

_MESSAGE = re.compile(r"^(?:/build/)?(?P<file>[\w./+-]+):(?P<line>\d+):(?:\d+:)? (?P<text>.*)$")


# A module's sections all begin at 0: linked apart, an address tells the section.
SECTIONS = {
    ".text": 0x1000_0000,
    ".text.unlikely": 0x2000_0000,
    ".exit.text": 0x3000_0000,
    ".init.text": 0x4000_0000,
}
LINKER_SCRIPT = "sections.lds"
LINE_TABLES = "line_tables.sh"
SOURCE = "source"
"""Folder of an entry with line tables that holds its sources: a patched tree is gone by the next day."""


@dataclass(frozen=True)
class Built:
    """Modules (`.ko` files by name), the compiler's messages about our files, and the compiler's version.

    `lines` are objdump's decoded line tables by module, if requested (kernel/line_tables.py), `debug` the modules
    with all their debug information.
    """

    modules: Mapping[str, Path]
    messages: tuple[str, ...]
    compiler: str
    lines: Mapping[str, Path]
    debug: Mapping[str, Path]


def sources_of(folder: Path) -> dict[str, bytes]:
    """Read the files that a module is built from: {path below `folder`: content}; UsageError without a makefile."""
    sources = {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
        and not path.name.startswith(".")
        and (path.name in NAMES or (path.suffix in SUFFIXES and not path.name.endswith(".mod.c")))
    }
    if not {"Kbuild", "Makefile"} & set(sources):
        raise UsageError(f"{folder} has neither Kbuild nor Makefile")
    return sources


@dataclass(frozen=True)
class _Recipe:
    """Inputs of a build: sources by their path below /build, kernel, toolchain and flags."""

    folder: Path
    sources: Mapping[str, bytes]
    kernel: Kernel
    tools: Toolchain
    flags: tuple[str, ...]
    lines: bool

    @property
    def key(self) -> str:
        """Cache key of the build."""
        parts = [part for name, content in self.sources.items() for part in (name, content)]
        shape = [*self.flags, self.lines and "lines"]
        return f"{self.folder.name}-{digest(RECIPE, self.kernel.folder.name, self.tools.key, shape, *parts)}"

    @property
    def headers(self) -> set[str]:
        """Headers that come before the kernel's own."""
        return {name for name in self.sources if name.startswith(INCLUDE)}


def build(
    folder: Path,
    kernel: Kernel,
    archive: Archive,
    flags: tuple[str, ...] = (),
    include: Path | None = None,
    lines: bool = False,
    like: Path | None = None,
) -> Built:
    """Build the modules of a folder; SetupError with the compiler's messages, file and line, if it fails.

    `flags` go to make: `W=1` for more warnings, `C=2` for sparse, `KCFLAGS=...`. Headers below `include` come
    before the kernel's own; a folder of the same tree is built as if it lay there. Modules have no debug
    information, but all their symbols: probes need those. With `lines` the build has line tables.
    `like` is another tree with the same folder and `include`: objects of files equal to its are taken from the cache.
    """
    checked = any(flag.startswith(("C=", "W=")) for flag in flags)
    tools = toolchain(kernel, archive, CHECKERS if checked else ())

    def recipe(folder: Path, include: Path | None, lines: bool) -> _Recipe:
        sources, more = _inputs(folder, include)
        return _Recipe(folder, sources, kernel, tools, (*flags, *more), lines)

    target = recipe(folder, include, lines)

    def reusable() -> tuple[Path, _Recipe] | None:
        if like is None or include is None:
            return None
        other = recipe(like / folder.relative_to(include.parent), like / include.name, False)
        # A new header may come before another one that an object was made with.
        return (_objects(other, archive), other) if other.headers == target.headers else None

    def make(into: Path) -> None:
        with archive.host.ledger.scratch_folder("module") as work:
            _write_sources(target, work, reusable())
            messages = _compile(target, archive, work)
            _collect(target, archive, work, messages, into)

    return _built(archive.store.built("module", target.key, make), tools.compiler)


def _built(entry: Path, compiler: str) -> Built:
    modules, lines, debug = (
        {path.stem: path for path in sorted(entry.glob(f"*.{suffix}"))} for suffix in ("ko", "lines", "debug")
    )
    return Built(modules, tuple(json.loads((entry / "messages.json").read_text())), compiler, lines, debug)


def _inputs(folder: Path, include: Path | None) -> tuple[dict[str, bytes], tuple[str, ...]]:
    """Read the files that a folder's modules are built from, and the flags for make that go with them."""
    sources = sources_of(folder)
    if include is None:
        return sources, ()
    headers = sorted(path for path in include.rglob("*.h") if path.is_file())
    sources |= {f"{INCLUDE}/{path.relative_to(include)}": path.read_bytes() for path in headers}
    if folder.is_relative_to(include.parent):
        place = folder.relative_to(include.parent)
        sources |= {f"{place}/{path.name}": path.read_bytes() for path in folder.glob("*_trace.h")}
    return sources, (f"NOSTDINC_FLAGS=-nostdinc -I/build/{INCLUDE} -I/build/{INCLUDE}/uapi",)


def _objects(recipe: _Recipe, archive: Archive) -> Path:
    """Return a built folder with its objects, from the cache."""

    def make(into: Path) -> None:
        with archive.host.ledger.scratch_folder("module") as work:
            _write_sources(recipe, work, None)
            _compile(recipe, archive, work)
            archive.host.run(["cp", "-a", f"{work}/.", str(into)])

    return archive.store.built("objects", recipe.key, make)


def _write_sources(recipe: _Recipe, work: Path, reusable: tuple[Path, _Recipe] | None) -> None:
    """Write the files to compile; unchanged ones of a built folder stay older than their objects."""
    known: Mapping[str, bytes] = {}
    if reusable is not None:
        built, known = reusable[0], reusable[1].sources
        # Modules are linked again: the makefile may no longer build one of them.
        shutil.copytree(built, work, symlinks=True, dirs_exist_ok=True, ignore=shutil.ignore_patterns("*.ko"))
    for name in known.keys() - recipe.sources.keys():
        (work / name).unlink()
    for name, content in recipe.sources.items():
        if known.get(name) != content:
            (work / name).parent.mkdir(parents=True, exist_ok=True)
            (work / name).write_bytes(content)


def _compile(recipe: _Recipe, archive: Archive, work: Path) -> list[str]:
    """Run make; return the compiler's messages."""
    kernel, tools = recipe.kernel, recipe.tools
    headers = f"/usr/src/linux-headers-{kernel.release}"
    argv = (
        "make",
        f"-j{os.cpu_count() or 1}",
        "-C",
        headers,
        "M=/build",
        *tools.make,
        *recipe.flags,
        "modules",
    )
    try:
        done = archive.host.run(tools.command(kernel, work, argv), timeout_s=900)
    except CommandError as error:
        output = error.finished.output
        messages = messages_of(output, recipe.folder) or output.splitlines()[-20:]
        raise SetupError(
            f"{recipe.folder.name} does not build for {kernel.release} with {tools.compiler}",
            messages,
            error.hint,
        ) from error
    if not list(work.rglob("*.ko")):
        raise SetupError(
            f"{recipe.folder.name} builds no module for {kernel.release}", done.output.splitlines()[-10:]
        )
    return messages_of(done.output, recipe.folder)


def _collect(recipe: _Recipe, archive: Archive, work: Path, messages: list[str], into: Path) -> None:
    """Copy what the entry holds: modules, line tables with their sources, messages."""
    every = ("find", "/build", "-name", "*.ko", "-exec")
    if recipe.lines:
        (work / LINKER_SCRIPT).write_text(_linker_script())
        shutil.copyfile(HERE / LINE_TABLES, work / LINE_TABLES)
        lines = (*every, "sh", f"/build/{LINE_TABLES}", "{}", f"/build/{LINKER_SCRIPT}", ";")
        archive.host.run(recipe.tools.command(recipe.kernel, work, lines), timeout_s=900)
    archive.host.run(recipe.tools.command(recipe.kernel, work, (*every, "strip", "--strip-debug", "{}", "+")))
    for made in (*work.rglob("*.ko"), *work.rglob("*.lines"), *work.rglob("*.debug")):
        shutil.copyfile(made, into / made.name)
    for name in recipe.sources.keys() - recipe.headers if recipe.lines else ():
        (into / SOURCE / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(work / name, into / SOURCE / name)
    (into / "messages.json").write_text(json.dumps(messages))


def _linker_script() -> str:
    """Place each section at its address of SECTIONS.

    ld's own script would put .text.unlikely (of a 6.1 module) into .text and so move the code there.
    """
    places = " ".join(f"{name} {start:#x} : {{ *({name}) }}" for name, start in SECTIONS.items())
    return f"SECTIONS {{ {places} }}\n"


def messages_of(output: str, folder: Path) -> list[str]:
    """Extract the compiler's messages, files named as in `folder`."""
    messages = []
    for match in filter(None, map(_MESSAGE.match, output.splitlines())):
        name = match["file"]
        here = folder / name if (folder / name).is_file() else Path(name)
        messages.append(f"{here}:{match['line']}: {match['text']}")
    return messages
