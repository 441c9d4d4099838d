"""A small reader of BTF, enough for the offsets of a structure's members.

Ref: Linux 7.2 Documentation/bpf/btf.rst.
"""

import lzma
import struct
from pathlib import Path

_INT, _ARRAY, _STRUCT, _UNION, _ENUM, _TYPEDEF, _VOLATILE, _CONST = 1, 3, 4, 5, 6, 8, 9, 10
_FUNC_PROTO, _VAR, _DATASEC, _DECL_TAG, _ENUM64 = 13, 14, 15, 17, 19
_EXTRA = {
    _INT: (4, 0),
    _ARRAY: (12, 0),
    _STRUCT: (0, 12),
    _UNION: (0, 12),
    _ENUM: (0, 8),
    _FUNC_PROTO: (0, 8),
}
_EXTRA |= {_VAR: (4, 0), _DATASEC: (0, 12), _DECL_TAG: (4, 0), _ENUM64: (0, 12)}


def _section(elf: bytes, name: bytes) -> bytes:
    (table,) = struct.unpack_from("<Q", elf, 0x28)
    entry, count, names = struct.unpack_from("<HHH", elf, 0x3A)
    heads = [struct.unpack_from("<IIQQQQ", elf, table + i * entry) for i in range(count)]
    strings = heads[names][4]
    for head in heads:
        start = strings + head[0]
        if elf[start : elf.index(b"\0", start)] == name:
            return elf[head[4] : head[4] + head[5]]
    raise LookupError(name)


def _elf(path: Path) -> bytes:
    """Read the ELF file, from .xz or from a bzImage's compressed payload (xz, as in Debian 6.1) if need be."""
    data = path.read_bytes()
    if path.suffix == ".xz":
        return lzma.decompress(data)
    if not data.startswith(b"\x7fELF"):
        return lzma.LZMADecompressor().decompress(data[data.index(b"\xfd7zXZ\0") :])
    return data


class Btf:
    """The types of a kernel image or, with `base`, of a module."""

    def __init__(self, path: Path, base: "Btf | None" = None) -> None:
        data = _section(_elf(path), b".BTF")
        _, _, _, header, type_at, type_size, string_at, string_size = struct.unpack_from("<HBBIIIII", data)
        self._base = base
        self._types = data[header + type_at : header + type_at + type_size]
        self._strings = data[header + string_at : header + string_at + string_size]
        self.first_string = base.first_string + len(base._strings) if base else 0
        self.first_type = base.first_type + len(base._places) if base else 1
        self._places: list[int] = []
        self.structures: dict[str, int] = dict(base.structures) if base else {}
        at = 0
        while at < type_size:
            name, info, _ = struct.unpack_from("<III", self._types, at)
            kind, count = info >> 24 & 0x1F, info & 0xFFFF
            if kind in (_STRUCT, _UNION) and name:
                self.structures.setdefault(self.text(name), self.first_type + len(self._places))
            self._places.append(at)
            fixed, each = _EXTRA.get(kind, (0, 0))
            at += 12 + fixed + each * count

    def text(self, offset: int) -> str:
        if offset < self.first_string:
            assert self._base
            return self._base.text(offset)
        offset -= self.first_string
        return self._strings[offset : self._strings.index(b"\0", offset)].decode()

    def _read(self, type_id: int) -> tuple[int, int, int, list[tuple[str, int, int]]]:
        """Kind, size or referred type, array length, members as (name, type, bit offset)."""
        if type_id < self.first_type:
            assert self._base
            return self._base._read(type_id)
        at = self._places[type_id - self.first_type]
        _, info, size = struct.unpack_from("<III", self._types, at)
        kind = info >> 24 & 0x1F
        if kind == _ARRAY:
            element, _, length = struct.unpack_from("<III", self._types, at + 12)
            return kind, element, length, []
        members = []
        if kind in (_STRUCT, _UNION):
            for i in range(info & 0xFFFF):
                name, member, offset = struct.unpack_from("<III", self._types, at + 12 + 12 * i)
                members.append((self.text(name), member, offset & 0xFFFFFF if info >> 31 else offset))
        return kind, size, 0, members

    def size(self, type_id: int) -> int:
        """Bytes."""
        kind, size, length, _ = self._read(type_id)
        if kind == _ARRAY:
            return self.size(size) * length
        return self.size(size) if kind in (_TYPEDEF, _CONST, _VOLATILE) else 8 if kind == 2 else size

    def members(self, structure: str) -> dict[str, tuple[int, int]]:
        """Every member by dotted path, anonymous ones merged: (byte offset, byte size)."""
        places: dict[str, tuple[int, int]] = {}

        def walk(type_id: int, prefix: str, base: int) -> None:
            kind, target, _, members = self._read(type_id)
            if kind in (_TYPEDEF, _CONST, _VOLATILE):
                walk(target, prefix, base)
            for name, member, offset in members:
                path = prefix + name if name else prefix.rstrip(".")
                if name:
                    places[path] = (base + offset // 8, self.size(member))
                walk(member, path + "." if path else "", base + offset // 8)

        walk(self.structures[structure], "", 0)
        return places
