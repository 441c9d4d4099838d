"""What a debugger needs to know of a running kernel: of a module, the same one with all its debug information.

Distributions strip their modules, and ours are stripped, too: probes need only names. But a build with line tables
keeps the whole module, and one of the distribution's own source has its code to the byte, which is checked.
"""

from __future__ import annotations

import filecmp
import re
from dataclasses import dataclass
from pathlib import Path

from harness.debian import Archive
from harness.errors import HarnessError
from harness.kernel.build import SOURCE, build
from harness.kernel.elf import Symbol, section, symbol_file
from harness.kernel.packages import Kernel
from harness.kernel.source import source
from harness.kernel.subsystems import (
    HEADERS,
    Part,
)

_SYMBOL = re.compile(r"^(?P<address>[0-9a-f]{16}) (?P<kind>[a-zA-Z]) (?P<name>\S+)$", re.M)
TRAMPOLINES = ("arch_rethook_trampoline", "__kretprobe_trampoline")
_KERNEL = 0xFFFF_FFFF_8000_0000


@dataclass(frozen=True)
class Debug:
    """A file with the symbols of a module; `sources` are the folder of its source, None where lines are not known,
    and `why` then says why.
    """

    file: Path
    sources: Path | None
    why: str = ""


def debug(name: str, given: Path | None, part: Part, kernel: Kernel, archive: Archive) -> Debug:
    """Of a module: as built by us (`given`), or the kernel's own."""
    module = given or next(kernel.modules.rglob(f"{name}.ko"))
    for kept in sorted((archive.store.root / "module").glob(f"*/{name}.debug")):
        if filecmp.cmp(module, kept.with_suffix(".ko"), shallow=False):
            return Debug(kept, kept.parent / SOURCE)
    try:
        stock = source(kernel, archive)
        built = build(stock / part.folder, kernel, archive, include=stock / HEADERS, lines=True, like=stock)
    except HarnessError as error:
        return Debug(module, None, error.headline)
    twin = built.debug[name]
    if section(twin, ".text") == section(module, ".text"):
        return Debug(twin, twin.parent / SOURCE)
    return Debug(module, None, "it is neither the distribution's nor of a build that is still in the cache")


def of_kernel(kallsyms: str) -> bytes:
    """A file of symbols from what a kernel says in /proc/kallsyms, without those of its modules."""
    found = [
        Symbol(match["name"], int(match["address"], 16), match["kind"] in "tTwW")
        for match in _SYMBOL.finditer(kallsyms)
    ]
    # Probes of a function's end put the trampoline in the place of its caller: a return to its very beginning, which a
    # debugger, who looks before the place of return, would take for whatever is before it.
    found += [Symbol(each.name, each.address - 1, True) for each in found if each.name in TRAMPOLINES]
    return symbol_file([symbol for symbol in found if symbol.address >= _KERNEL])
