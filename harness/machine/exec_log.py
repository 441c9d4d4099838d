"""Find the instructions of some modules that a machine ran, by QEMU's log of the blocks that it translates.

After a restore nothing is translated yet, so a block is logged when it is first run. The guest does not notice.
Ref: QEMU 11.1 qemu-options.hx, -d in_asm, -dfilter
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

_ADDRESS = re.compile(r"^0x([0-9a-f]+):", re.M)
_SECTION = re.compile(r"^(?P<module>\w+) (?P<section>\.\S+) 0x(?P<start>[0-9a-f]+)$", re.M)
_LOADED = re.compile(r"^(?P<module>\w+) (?P<size>\d+) .* 0x(?P<start>[0-9a-f]+)(?: \(.*\))?$", re.M)

ASK = ("sh", "-c", Path(__file__).with_name("sections.sh").read_text("utf-8"), "sections")
"""Command for a guest, with names of modules after it; `sections` and `ModuleLayout.read` parse its output."""

_CODE = (".text", ".text.unlikely", ".exit.text")


Offsets = Mapping[str, Mapping[str, list[int]]]
"""Offsets of instructions by module and section, in order."""


def sections(answer: str) -> Iterator[tuple[str, str, int]]:
    """Yield module, name and address of each section, from the output of ASK."""
    for match in _SECTION.finditer(answer):
        yield match["module"], match["section"], int(match["start"], 16)


@dataclass(frozen=True)
class ModuleLayout:
    """Code of modules in a machine: sections as (module, section, first address), modules as ranges (first, length)."""

    sections: tuple[tuple[str, str, int], ...]
    ranges: tuple[tuple[int, int], ...]

    @classmethod
    def read(cls, answer: str, modules: tuple[str, ...]) -> ModuleLayout:
        """Parse the output of ASK for these modules."""
        code = tuple(place for place in sections(answer) if place[1] in _CODE)
        ranges = tuple(
            (int(m["start"], 16), int(m["size"]))
            for m in _LOADED.finditer(answer)
            if m["module"] in modules and "." not in m["module"]
        )
        return cls(code, ranges)

    def options(self, log: Path) -> tuple[str, ...]:
        """Return QEMU's options that write the log."""
        if not self.ranges:
            return ()
        ranges = ",".join(f"{start:#x}+{size:#x}" for start, size in self.ranges)
        return ("-d", "in_asm", "-dfilter", ranges, "-D", str(log))

    def executed(self, log: str) -> Offsets:
        """Parse the log: the first instruction of each block that ran."""
        ordered = sorted(self.sections, key=lambda entry: entry[2])
        offsets: dict[str, dict[str, list[int]]] = {}
        at = 0
        for address in sorted({int(text, 16) for text in _ADDRESS.findall(log)}):
            while at + 1 < len(ordered) and ordered[at + 1][2] <= address:
                at += 1
            if ordered and ordered[at][2] <= address:
                module, section, start = ordered[at]
                offsets.setdefault(module, {}).setdefault(section, []).append(address - start)
        return offsets
