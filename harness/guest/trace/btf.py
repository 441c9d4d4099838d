"""Sizes of a module's own structures, from its BTF in the running kernel.

Ref: Linux 7.2 Documentation/bpf/btf.rst
"""

from __future__ import annotations

import struct
from pathlib import Path

ANY = 1
"""A size that no structure has, where a request needs one nevertheless."""

_FOLDER = Path("/sys/kernel/btf")
_HEADER = struct.Struct("<HBBIIIII")
_STRUCT = 4
# Bytes that follow a type: fixed ones, and those of each member. Ref: btf.rst, "Type encoding"
_MORE = {1: (4, 0), 3: (12, 0), 4: (0, 12), 5: (0, 12), 6: (0, 8), 13: (0, 8), 14: (4, 0), 15: (0, 12)}
_MORE.update({17: (4, 0), 19: (0, 12)})


def size_of(module: str, name: str) -> int:
    """Return the size of `struct name` of a module; LookupError if its BTF is missing or has no such structure.

    The name must not be in the kernel's own BTF, too.
    """
    path = _FOLDER / module
    if not path.exists():
        raise LookupError(f"no BTF of {module}: not loaded, or built without it")
    base = _HEADER.unpack_from((_FOLDER / "vmlinux").read_bytes())[7]
    size = find(path.read_bytes(), base, name)
    if size is None:
        raise LookupError(f"{module} has no struct {name}")
    return size


def find(data: bytes, base_strings: int, name: str) -> int | None:
    """Find a structure in split BTF; return its size. Its strings begin after `base_strings` bytes of the base's."""
    _, _, _, header, type_at, type_size, string_at, string_size = _HEADER.unpack_from(data)
    strings = data[header + string_at : header + string_at + string_size]
    at, end = header + type_at, header + type_at + type_size
    while at < end:
        name_at, info, size = struct.unpack_from("<III", data, at)
        kind, count = info >> 24 & 0x1F, info & 0xFFFF
        fixed, each = _MORE.get(kind, (0, 0))
        at += 12 + fixed + each * count
        own = name_at - base_strings
        if kind == _STRUCT and own >= 0 and strings[own : strings.index(b"\0", own)] == name.encode():
            return int(size)
    return None
