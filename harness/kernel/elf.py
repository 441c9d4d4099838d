"""Read a section of an ELF file; write an ELF file of symbols only.

Ref: System V ABI, chapter 4; 64 bits, little-endian.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

_HEADER = struct.Struct("<16sHHIQQQIHHHHHH")
_SECTION = struct.Struct("<IIQQQQIIQQ")
_SYMBOL = struct.Struct("<IBBHQQ")
_IDENT = b"\x7fELF\x02\x01\x01" + bytes(9)
_EXEC, _X86_64 = 2, 62
_SYMTAB, _STRTAB, _NOBITS = 2, 3, 8
_ALLOC_EXECUTE = 0x6
_GLOBAL_FUNCTION, _GLOBAL_OBJECT = 0x12, 0x11
_ABSOLUTE = 0xFFF1
_NAMES = b"\0.text\0.symtab\0.strtab\0.shstrtab\0"


@dataclass(frozen=True)
class Symbol:
    """A name, its address, and whether it is code."""

    name: str
    address: int
    code: bool


def section(file: Path, name: str) -> bytes:
    """Return the bytes of a section; empty if there is no such section."""
    data = file.read_bytes()
    header = _HEADER.unpack_from(data)
    table, size, number, names = header[6], header[11], header[12], header[13]
    entries = [_SECTION.unpack_from(data, table + index * size) for index in range(number)]
    strings = entries[names]
    text = data[strings[4] : strings[4] + strings[5]]
    for entry in entries:
        if text[entry[0] : text.index(b"\0", entry[0])].decode() == name and entry[1] != _NOBITS:
            return data[entry[4] : entry[4] + entry[5]]
    return b""


def symbol_file(symbols: Sequence[Symbol]) -> bytes:
    """Build an executable without content, its code at the first function: debuggers read its symbols."""
    code = [symbol.address for symbol in symbols if symbol.code]
    start, end = min(code, default=0), max(code, default=0) + 1
    strings = bytearray(b"\0")
    table = bytearray(_SYMBOL.size)
    for symbol in symbols:
        kind, where = (_GLOBAL_FUNCTION, 1) if symbol.code else (_GLOBAL_OBJECT, _ABSOLUTE)
        table += _SYMBOL.pack(len(strings), kind, 0, where, symbol.address, 0)
        strings += symbol.name.encode() + b"\0"
    at = _HEADER.size
    places = []
    for content in (table, strings, _NAMES):
        places.append((at, len(content)))
        at += len(content)
    header = _HEADER.pack(_IDENT, _EXEC, _X86_64, 1, start, 0, at, 0, _HEADER.size, 0, 0, _SECTION.size, 5, 4)
    sections = (
        bytes(_SECTION.size),
        _SECTION.pack(1, _NOBITS, _ALLOC_EXECUTE, start, _HEADER.size, end - start, 0, 0, 16, 0),
        _SECTION.pack(7, _SYMTAB, 0, 0, *places[0], 3, 1, 8, _SYMBOL.size),
        _SECTION.pack(15, _STRTAB, 0, 0, *places[1], 0, 0, 1, 0),
        _SECTION.pack(23, _STRTAB, 0, 0, *places[2], 0, 0, 1, 0),
    )
    return b"".join((header, bytes(table), bytes(strings), _NAMES, *sections))
