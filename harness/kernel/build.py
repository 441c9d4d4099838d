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

RECIPE = 4
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
_STARTS = " ".join(f"--section-start={name}={start:#x}" for name, start in SECTIONS.items())
_LINES = (
    f'ld --noinhibit-exec --unresolved-symbols=ignore-all -e 0 {_STARTS} -o "$1.elf" "$1" 2>/dev/null; '
    'nm -S "$1.elf" >"${1%.ko}.lines" && objdump --dwarf=decodedline --wide "$1.elf" >>"${1%.ko}.lines" && rm "$1.elf"'
    ' && objcopy --compress-debug-sections=zlib "$1" "${1%.ko}.debug"'
)
SOURCE = "source"
"""Where an entry with line tables keeps the sources that it was built from: a patched tree is gone by the next day."""


@dataclass(frozen=True)
class Built:
    """Modules (`.ko` files by name), what the compiler said of our files, and which compiler it was.

    `lines` are by module objdump's decoded line tables, where they were asked for (kernel/lines.py reads them), and
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


def build(
    folder: Path,
    kernel: Kernel,
    archive: Archive,
    flags: tuple[str, ...] = (),
    include: Path | None = None,
    lines: bool = False,
) -> Built:
    """Build the modules of a folder; SetupError with the compiler's messages, file and line, if it fails.

    `flags` go to make: `W=1` for more warnings, `C=2` for sparse, `KCFLAGS=...`. Headers below `include` come
    before the kernel's own; a folder of the same tree is built as if it lay there. Modules are without debug
    information, with all their symbols: probes need those. With `lines` it is told which line each instruction is of.
    """
    sources = sources_of(folder)
    if include is not None:
        headers = sorted(path for path in include.rglob("*.h") if path.is_file())
        sources |= {f"{INCLUDE}/{path.relative_to(include)}": path.read_bytes() for path in headers}
        if folder.is_relative_to(include.parent):
            place = folder.relative_to(include.parent)
            sources |= {f"{place}/{path.name}": path.read_bytes() for path in folder.glob("*_trace.h")}
        flags = (*flags, f"NOSTDINC_FLAGS=-nostdinc -I/build/{INCLUDE} -I/build/{INCLUDE}/uapi")
    checked = any(flag.startswith(("C=", "W=")) for flag in flags)
    tools = toolchain(kernel, archive, CHECKERS if checked else ())
    parts: list[object] = [part for name, content in sources.items() for part in (name, content)]
    asked = [*flags, lines and "debug"]
    key = f"{folder.name}-{digest(RECIPE, kernel.folder.name, tools.key, asked, *parts)}"
    entry = archive.store.built(
        "module", key, lambda into: _make(sources, folder, kernel, archive, tools, flags, lines, into)
    )
    modules = {path.stem: path for path in sorted(entry.glob("*.ko"))}
    tables = {path.stem: path for path in sorted(entry.glob("*.lines"))}
    debug = {path.stem: path for path in sorted(entry.glob("*.debug"))}
    messages = tuple(json.loads((entry / "messages.json").read_text()))
    return Built(modules, messages, tools.compiler, tables, debug)


def _make(
    sources: Mapping[str, bytes],
    folder: Path,
    kernel: Kernel,
    archive: Archive,
    tools: Toolchain,
    flags: tuple[str, ...],
    lines: bool,
    into: Path,
) -> None:
    with archive.host.ledger.scratch_folder("module") as work:
        for name, content in sources.items():
            (work / name).parent.mkdir(parents=True, exist_ok=True)
            (work / name).write_bytes(content)
        headers = f"/usr/src/linux-headers-{kernel.release}"
        argv = ("make", f"-j{os.cpu_count() or 1}", "-C", headers, "M=/build", *flags, "modules")
        every = ("find", "/build", "-name", "*.ko", "-exec")
        strip = (*every, "strip", "--strip-debug", "{}", "+")
        try:
            done = archive.host.run(tools.command(kernel, work, argv), timeout_s=900)
            if lines:
                archive.host.run(
                    tools.command(kernel, work, (*every, "sh", "-c", _LINES, "lines", "{}", ";")),
                    timeout_s=900,
                )
            archive.host.run(tools.command(kernel, work, strip))
        except CommandError as error:
            said = error.finished.output
            messages = messages_of(said, folder) or said.splitlines()[-20:]
            raise SetupError(
                f"{folder.name} does not build for {kernel.release} with {tools.compiler}",
                messages,
                error.hint,
            ) from error
        for made in (*work.rglob("*.ko"), *work.rglob("*.lines"), *work.rglob("*.debug")):
            shutil.copyfile(made, into / made.name)
        for name in sources if lines else ():
            if not name.startswith(INCLUDE):
                (into / SOURCE / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(work / name, into / SOURCE / name)
        (into / "messages.json").write_text(json.dumps(messages_of(done.output, folder)))
    if not list(into.glob("*.ko")):
        raise SetupError(
            f"{folder.name} has built no module for {kernel.release}", done.output.splitlines()[-10:]
        )


def messages_of(output: str, folder: Path) -> list[str]:
    """The compiler's messages, files named as in `folder`."""
    found = []
    for match in filter(None, map(_MESSAGE.match, output.splitlines())):
        name = match["file"]
        here = folder / name if (folder / name).is_file() else Path(name)
        found.append(f"{here}:{match['line']}: {match['text']}")
    return found
