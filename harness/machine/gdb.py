"""A machine under gdb: QEMU's own stub on a socket, and the commands that let gdb find its way in the guest.

A breakpoint is QEMU's, not the guest's: no instruction of the guest changes and none is counted for it. The guest's
time stands still while it is stopped. Ref: QEMU 11.1 docs/system/gdb.rst
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from harness.machine import exec_log

CHARDEV = "gdb"
TEXT = ".text"

KALLSYMS = ("sh", "-c", r"grep -v '\[' /proc/kallsyms | gzip -1 | base64 -w 0")
"""Asks a guest for the kernel's own symbols."""

# Sections that debug information speaks of; a module has many more.
WANTED = re.compile(
    r"\.(text|rodata|data|bss)(\.unlikely|\.hot|\.\.read_mostly|\.\.ro_after_init)?|\.exit\.text"
)


@dataclass(frozen=True)
class Loaded:
    """A module in the guest: the file with its symbols, where its source is, and where its sections are."""

    name: str
    file: Path
    sources: Path | None
    sections: Mapping[str, int]


def sections(answer: str) -> dict[str, dict[str, int]]:
    """By module the addresses of its sections, from the output of blocks.ASK."""
    found: dict[str, dict[str, int]] = {}
    for module, section, start in exec_log.sections(answer):
        found.setdefault(module, {})[section] = start
    return found


def options(socket: Path) -> tuple[str, ...]:
    """QEMU's options for a stub there; it waits for nobody."""
    return ("-chardev", f"socket,id={CHARDEV},path={socket},server=on,wait=off", "-gdb", f"chardev:{CHARDEV}")


def connected(chardevs: Iterable[Mapping[str, str]]) -> bool:
    """Whether somebody is at the stub, from what QEMU's monitor says of its sockets."""
    return any(
        each["label"] == CHARDEV and not each["filename"].startswith("disconnected") for each in chardevs
    )


# gdb tells of each section, together more than a screen has lines, and would wait for a key. Whether it does later is
# the user's own matter. Ref: gdb's manual, $_gdb_setting
_UNPAGED = ('set $paged = $_gdb_setting("pagination")', "set pagination off")
_PAGED = ("if $paged", "set pagination on", "end")


def script(socket: Path, kernel: Path, modules: Sequence[Loaded]) -> str:
    """gdb's commands: symbols where they are, source where it is, and the machine."""
    lines = [*_UNPAGED, "set confirm off", "set architecture i386:x86-64", f"symbol-file {kernel}"]
    for module in modules:
        where = [
            f"-s {name} {start:#x}"
            for name, start in sorted(module.sections.items())
            if WANTED.fullmatch(name) and name != TEXT
        ]
        lines.append(" ".join(["add-symbol-file", str(module.file), f"{module.sections[TEXT]:#x}", *where]))
        if module.sources is not None:
            lines.append(f"directory {module.sources}")
    lines += ["set disassemble-next-line off", f"target remote {socket}", *_PAGED]
    return "\n".join(lines) + "\n"


def command(file: Path) -> list[str]:
    """gdb with these commands."""
    return ["gdb", "-q", "-x", str(file)]
