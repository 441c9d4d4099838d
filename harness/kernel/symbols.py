"""Find debug information for a running kernel: the same module, unstripped.

Distributions strip their modules, and so do we: probes need only names. But a build with line tables has the whole
module, and one from the distribution's own source has the same code to the byte, which is checked.
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
from harness.kernel.subsystems import HEADERS, Part

_SYMBOL = re.compile(r"^(?P<address>[0-9a-f]{16}) (?P<kind>[a-zA-Z]) (?P<name>\S+)$", re.M)
TRAMPOLINES = ("arch_rethook_trampoline", "__kretprobe_trampoline")
_KERNEL = 0xFFFF_FFFF_8000_0000


@dataclass(frozen=True)
class Debug:
    """Symbols of a module; `sources` is the folder of its source, None with the reason `why` if lines are unknown."""

    file: Path
    sources: Path | None
    why: str = ""


def debug(name: str, replacement: Path | None, part: Part, kernel: Kernel, archive: Archive) -> Debug:
    """Find the symbols of a module: of our `replacement`, or of the kernel's own."""
    module = replacement or next(kernel.modules.rglob(f"{name}.ko"))
    for cached in sorted((archive.store.root / "module").glob(f"*/{name}.debug")):
        if filecmp.cmp(module, cached.with_suffix(".ko"), shallow=False):
            return Debug(cached, cached.parent / SOURCE)
    try:
        stock = source(kernel, archive)
        built = build(stock / part.folder, kernel, archive, include=stock / HEADERS, lines=True, like=stock)
    except HarnessError as error:
        return Debug(module, None, error.headline)
    twin = built.debug[name]
    if section(twin, ".text") == section(module, ".text"):
        return Debug(twin, twin.parent / SOURCE)
    return Debug(module, None, "it is neither the distribution's nor of a cached build")


def of_kernel(kallsyms: str) -> bytes:
    """Build a symbol file from the text of /proc/kallsyms, without the symbols of modules."""
    symbols = [
        Symbol(match["name"], int(match["address"], 16), match["kind"] in "tTwW")
        for match in _SYMBOL.finditer(kallsyms)
    ]
    # A kretprobe returns to the first byte of the trampoline, and a debugger looks up the byte before a return address.
    symbols += [Symbol(each.name, each.address - 1, True) for each in symbols if each.name in TRAMPOLINES]
    return symbol_file([symbol for symbol in symbols if symbol.address >= _KERNEL])
