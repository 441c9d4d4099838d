"""Sizes of structures in BTF."""

import struct

from harness.guest.trace import btf


def test_structure_of_a_module_is_found():
    """A structure among others, its name behind the base's strings. Mutation: forget the members of an enum."""
    strings = b"other\0mlx5_pagefault\0"
    base = 1000
    types = struct.pack("<III", base, 6 << 24 | 2, 4) + bytes(16)
    types += struct.pack("<III", 5, 4 << 24 | 1, 12) + bytes(12)
    types += struct.pack("<III", base + 6, 4 << 24 | 1, 96) + bytes(12)
    header = struct.pack("<HBBIIIII", 0xEB9F, 1, 0, 24, 0, len(types), len(types), len(strings))
    assert btf.find(header + types + strings, base, "mlx5_pagefault") == 96
    assert btf.find(header + types + strings, base, "nothing") is None
