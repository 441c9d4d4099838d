"""Debug a guest with gdb: QEMU's stub on a socket, and gdb commands that load symbols and sources.

A breakpoint is QEMU's, not the guest's: no instruction of the guest changes or is added. The guest's time stops with
it. Ref: QEMU 11.1 docs/system/gdb.rst
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
"""Command for a guest that prints the kernel's own symbols, compressed."""

# Sections that debug information refers to; a module has many more.
DEBUGGED = re.compile(
    r"\.(text|rodata|data|bss)(\.unlikely|\.hot|\.\.read_mostly|\.\.ro_after_init)?|\.exit\.text"
)


@dataclass(frozen=True)
class Loaded:
    """A module in the guest: the file with its symbols, the folder of its source, the addresses of its sections."""

    name: str
    file: Path
    sources: Path | None
    sections: Mapping[str, int]


def sections(answer: str) -> dict[str, dict[str, int]]:
    """Collect the addresses of sections by module, from the output of exec_log.ASK."""
    addresses: dict[str, dict[str, int]] = {}
    for module, section, start in exec_log.sections(answer):
        addresses.setdefault(module, {})[section] = start
    return addresses


def options(socket: Path) -> tuple[str, ...]:
    """Return QEMU's options for a stub on a socket; the machine does not wait for a debugger."""
    return ("-chardev", f"socket,id={CHARDEV},path={socket},server=on,wait=off", "-gdb", f"chardev:{CHARDEV}")


def connected(chardevs: Iterable[Mapping[str, str]]) -> bool:
    """Return whether a debugger is connected, from the answer to query-chardev."""
    return any(
        each["label"] == CHARDEV and not each["filename"].startswith("disconnected") for each in chardevs
    )


# gdb prints more lines for the sections than fit a screen, and would wait for a key. The user's setting is restored.
# Ref: gdb's manual, $_gdb_setting
_UNPAGED = ('set $paged = $_gdb_setting("pagination")', "set pagination off")
_PAGED = ("if $paged", "set pagination on", "end")


def script(socket: Path, kernel: Path, modules: Sequence[Loaded]) -> str:
    """Write gdb's commands: load symbols at their addresses, set source folders, connect."""
    lines = [*_UNPAGED, "set confirm off", "set architecture i386:x86-64", f"symbol-file {kernel}"]
    for module in modules:
        where = [
            f"-s {name} {start:#x}"
            for name, start in sorted(module.sections.items())
            if DEBUGGED.fullmatch(name) and name != TEXT
        ]
        lines.append(" ".join(["add-symbol-file", str(module.file), f"{module.sections[TEXT]:#x}", *where]))
        if module.sources is not None:
            lines.append(f"directory {module.sources}")
    lines += ["set disassemble-next-line off", f"target remote {socket}", *_PAGED]
    return "\n".join(lines) + "\n"


def command(file: Path) -> list[str]:
    """Return the command that starts gdb with a script."""
    return ["gdb", "-q", "-x", str(file)]
