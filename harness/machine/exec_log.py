"""Which instructions of some modules a machine ran: QEMU's own log of the blocks that it translates.

After a restore nothing is translated yet, so a block is logged when it is first run. Nothing in the guest knows of
it. Ref: QEMU 11.1 qemu-options.hx, -d in_asm, -dfilter
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

_ADDRESS = re.compile(r"^0x([0-9a-f]+):", re.M)
_SECTION = re.compile(r"^(?P<module>\w+) (?P<section>\.\S+) 0x(?P<start>[0-9a-f]+)$", re.M)
_LOADED = re.compile(r"^(?P<module>\w+) (?P<size>\d+) .* 0x(?P<start>[0-9a-f]+)(?: \(.*\))?$", re.M)

ASK = (
    "sh",
    "-c",
    'for m in "$@"; do (cd /sys/module/$m/sections 2>/dev/null || exit;'
    " for s in .[a-z]*; do echo $m $s $(cat $s); done); done; cat /proc/modules",
    "sections",
)
"""Asks a guest where modules, named behind it, are; `sections` and `Places.read` understand the answer."""

_CODE = (".text", ".text.unlikely", ".exit.text")


Offsets = Mapping[str, Mapping[str, list[int]]]
"""By module and section the offsets of instructions, in order."""


def sections(answer: str) -> Iterator[tuple[str, str, int]]:
    """Module, section and address of each section that there is, from the output of ASK."""
    for found in _SECTION.finditer(answer):
        yield found["module"], found["section"], int(found["start"], 16)


@dataclass(frozen=True)
class ModuleLayout:
    """Where modules have code in a machine: (module, section, first address); the ranges (first, length) of all."""

    sections: tuple[tuple[str, str, int], ...]
    ranges: tuple[tuple[int, int], ...]

    @classmethod
    def read(cls, answer: str, modules: tuple[str, ...]) -> ModuleLayout:
        """From the output of ASK."""
        code = tuple(place for place in sections(answer) if place[1] in _CODE)
        ranges = tuple(
            (int(m["start"], 16), int(m["size"]))
            for m in _LOADED.finditer(answer)
            if m["module"] in modules and "." not in m["module"]
        )
        return cls(code, ranges)

    def options(self, log: Path) -> tuple[str, ...]:
        """QEMU's options that write the log."""
        if not self.ranges:
            return ()
        wanted = ",".join(f"{start:#x}+{size:#x}" for start, size in self.ranges)
        return ("-d", "in_asm", "-dfilter", wanted, "-D", str(log))

    def ran(self, log: str) -> Offsets:
        """From the log what ran."""
        ordered = sorted(self.sections, key=lambda entry: entry[2])
        found: dict[str, dict[str, list[int]]] = {}
        at = 0
        for address in sorted({int(text, 16) for text in _ADDRESS.findall(log)}):
            while at + 1 < len(ordered) and ordered[at + 1][2] <= address:
                at += 1
            if ordered and ordered[at][2] <= address:
                module, section, start = ordered[at]
                found.setdefault(module, {}).setdefault(section, []).append(address - start)
        return found
