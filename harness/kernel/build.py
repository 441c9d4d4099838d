"""Builds modules from source for a kernel.

What was built is an entry of the cache, keyed by sources, kernel, toolchain and flags.
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
# Sparse, and for kernel-doc, which W=1 runs, the whole of Perl.
CHECKERS = ("sparse", "perl")
# Two folders deep: a tracepoint's header may be named from include/trace/ as ../../PLACE IN THE TREE/x_trace.h, which
# the compiler also tries from here. Ref: Linux 7.3 drivers/infiniband/core/cm_trace.h, TRACE_INCLUDE_PATH
INCLUDE = "odp/include"

_MESSAGE = re.compile(r"^(?:/build/)?(?P<file>[\w./+-]+):(?P<line>\d+):(?:\d+:)? (?P<text>.*)$")


# A module's sections all begin at 0: linked apart, an address says in which it is. Names of other modules stay open.
SECTIONS = {
    ".text": 0x1000_0000,
    ".text.unlikely": 0x2000_0000,
    ".exit.text": 0x3000_0000,
    ".init.text": 0x4000_0000,
}
# A script of our own: ld's would put .text.unlikely (of a 6.1 module) into .text and so move what is there.
_PLACES = " ".join(f"{name} {start:#x} : {{ *({name}) }}" for name, start in SECTIONS.items())
_LINES = (
    f'echo "SECTIONS {{ {_PLACES} }}" >"$1.lds"; '
    'ld -T "$1.lds" --noinhibit-exec --unresolved-symbols=ignore-all -e 0 -o "$1.elf" "$1" 2>/dev/null; '
    'nm -S "$1.elf" >"${1%.ko}.lines" && objdump --dwarf=decodedline --wide "$1.elf" >>"${1%.ko}.lines"'
    ' && rm "$1.elf" "$1.lds" && objcopy --compress-debug-sections=zlib "$1" "${1%.ko}.debug"'
)
SOURCE = "source"
"""Where an entry with line tables keeps the sources that it was built from: a patched tree is gone by the next day."""


@dataclass(frozen=True)
class Built:
    """Modules (`.ko` files by name), what the compiler said of our files, and which compiler it was.

    `lines` are by module objdump's decoded line tables where asked for (kernel/line_tables.py), and
    `debug` the modules with all their debug information.
    """

    modules: Mapping[str, Path]
    messages: tuple[str, ...]
    compiler: str
    lines: Mapping[str, Path]
    debug: Mapping[str, Path]


def sources_of(folder: Path) -> dict[str, bytes]:
    """The files that shape a module: path below `folder`, and content; UsageError if it has no makefile."""
    found = {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
        and not path.name.startswith(".")
        and (path.name in NAMES or (path.suffix in SUFFIXES and not path.name.endswith(".mod.c")))
    }
    if not {"Kbuild", "Makefile"} & set(found):
        raise UsageError(f"{folder} has neither Kbuild nor Makefile")
    return found


@dataclass(frozen=True)
class _Recipe:
    """What is made of what: files by their place below /build, and how."""

    folder: Path
    sources: Mapping[str, bytes]
    kernel: Kernel
    tools: Toolchain
    flags: tuple[str, ...]
    lines: bool

    @property
    def key(self) -> str:
        """Of what comes of it."""
        parts = [part for name, content in self.sources.items() for part in (name, content)]
        shape = [*self.flags, self.lines and "lines"]
        return f"{self.folder.name}-{digest(RECIPE, self.kernel.folder.name, self.tools.key, shape, *parts)}"

    @property
    def headers(self) -> set[str]:
        """Those that come before the kernel's own."""
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
    before the kernel's own; a folder of the same tree is built as if it lay there. Modules are without debug
    information, with all their symbols: probes need those. With `lines` it is told which line each instruction is of.
    `like` is another tree that has the folder and `include`: of what is as there the objects are taken from the cache.
    """
    checked = any(flag.startswith(("C=", "W=")) for flag in flags)
    tools = toolchain(kernel, archive, CHECKERS if checked else ())

    def recipe(folder: Path, include: Path | None, lines: bool) -> _Recipe:
        sources, more = _inputs(folder, include)
        return _Recipe(folder, sources, kernel, tools, (*flags, *more), lines)

    wanted = recipe(folder, include, lines)

    def done() -> tuple[Path, _Recipe] | None:
        if like is None or include is None:
            return None
        place = folder.relative_to(include.parent)
        found = recipe(like / place, like / include.name, False)
        # A header that is new may come before another that an object was made with.
        return (_objects(found, archive), found) if found.headers == wanted.headers else None

    def make(into: Path) -> None:
        with archive.host.ledger.scratch_folder("module") as work:
            _lay(wanted, work, done())
            messages = _compile(wanted, archive, work)
            _collect(wanted, archive, work, messages, into)

    return _built(archive.store.built("module", wanted.key, make), tools.compiler)


def _built(entry: Path, compiler: str) -> Built:
    modules, lines, debug = (
        {path.stem: path for path in sorted(entry.glob(f"*.{suffix}"))} for suffix in ("ko", "lines", "debug")
    )
    return Built(modules, tuple(json.loads((entry / "messages.json").read_text())), compiler, lines, debug)


def _inputs(folder: Path, include: Path | None) -> tuple[dict[str, bytes], tuple[str, ...]]:
    """The files that shape a folder's modules, and what make is told of them."""
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
    """A folder in which the recipe was made, from the cache."""

    def make(into: Path) -> None:
        with archive.host.ledger.scratch_folder("module") as work:
            _lay(recipe, work, None)
            _compile(recipe, archive, work)
            archive.host.run(["cp", "-a", f"{work}/.", str(into)])

    return archive.store.built("objects", recipe.key, make)


def _lay(recipe: _Recipe, work: Path, done: tuple[Path, _Recipe] | None) -> None:
    """The files to compile; those that are as in a folder that was made stay as old as their objects."""
    known: Mapping[str, bytes] = {}
    if done is not None:
        made, known = done[0], done[1].sources
        # Modules are linked anew: one may be built no more.
        shutil.copytree(made, work, symlinks=True, dirs_exist_ok=True, ignore=shutil.ignore_patterns("*.ko"))
    for name in known.keys() - recipe.sources.keys():
        (work / name).unlink()
    for name, content in recipe.sources.items():
        if known.get(name) != content:
            (work / name).parent.mkdir(parents=True, exist_ok=True)
            (work / name).write_bytes(content)


def _compile(recipe: _Recipe, archive: Archive, work: Path) -> list[str]:
    """make; returns the compiler's messages."""
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
        said = error.finished.output
        messages = messages_of(said, recipe.folder) or said.splitlines()[-20:]
        raise SetupError(
            f"{recipe.folder.name} does not build for {kernel.release} with {tools.compiler}",
            messages,
            error.hint,
        ) from error
    if not list(work.rglob("*.ko")):
        raise SetupError(
            f"{recipe.folder.name} has built no module for {kernel.release}", done.output.splitlines()[-10:]
        )
    return messages_of(done.output, recipe.folder)


def _collect(recipe: _Recipe, archive: Archive, work: Path, messages: list[str], into: Path) -> None:
    """What is kept of a folder that was made."""
    every = ("find", "/build", "-name", "*.ko", "-exec")
    if recipe.lines:
        lines = (*every, "sh", "-c", _LINES, "lines", "{}", ";")
        archive.host.run(recipe.tools.command(recipe.kernel, work, lines), timeout_s=900)
    archive.host.run(recipe.tools.command(recipe.kernel, work, (*every, "strip", "--strip-debug", "{}", "+")))
    for made in (*work.rglob("*.ko"), *work.rglob("*.lines"), *work.rglob("*.debug")):
        shutil.copyfile(made, into / made.name)
    for name in recipe.sources.keys() - recipe.headers if recipe.lines else ():
        (into / SOURCE / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(work / name, into / SOURCE / name)
    (into / "messages.json").write_text(json.dumps(messages))


def messages_of(output: str, folder: Path) -> list[str]:
    """The compiler's messages, files named as in `folder`."""
    found = []
    for match in filter(None, map(_MESSAGE.match, output.splitlines())):
        name = match["file"]
        here = folder / name if (folder / name).is_file() else Path(name)
        found.append(f"{here}:{match['line']}: {match['text']}")
    return found
