"""PCI configuration space, read as a kernel reads it."""

import struct

from harness.connectx.transport.pci import (
    MSIX_PENDING,
    MSIX_TABLE,
    SIZE,
    ConfigSpace,
    PciIdentity,
)


def word(space, offset):
    return struct.unpack("<H", space.read(offset, 2))[0]


def capabilities(space):
    """Return {id: offset}, by the list."""
    offsets = {}
    at = space.read(0x34, 1)[0]
    while at:
        number, following = space.read(at, 2)
        assert number not in offsets and at % 4 == 0
        offsets[number] = at
        at = following
    return offsets


def test_identity():
    """Mutation: shift the class code by 16."""
    space = ConfigSpace(PciIdentity(device=0x1021, revision=3, subsystem=0x20))
    assert space.read(0, 4) == struct.pack("<HH", 0x15B3, 0x1021)
    assert space.read(8, 4) == bytes([3, 0, 7, 2])
    assert space.read(0x2C, 4) == struct.pack("<HH", 0x15B3, 0x20)
    assert space.read(0x3D, 1) == b"\0", "no INTx"


def test_capabilities():
    """Mutation: let the list end after power management."""
    for power, expected in ((True, {0x01, 0x10, 0x11}), (False, {0x10, 0x11})):
        space = ConfigSpace(PciIdentity(power_management=power))
        assert word(space, 6) & 0x10
        offsets = capabilities(space)
        assert set(offsets) == expected
        assert word(space, offsets[0x10] + 2) & 0xF == 2, "PCI Express capability, version 2"
        msix = offsets[0x11]
        assert word(space, msix + 2) & 0x7FF == 15
        table, pending = struct.unpack("<II", space.read(msix + 4, 8))
        assert (table, pending) == (MSIX_TABLE | 2, MSIX_PENDING | 2)


def test_bars_are_sized_by_writing_ones():
    """Mutation: let every bit of a BAR be written."""
    space = ConfigSpace(PciIdentity(registers_size=32 << 20))
    space.write(0x10, b"\xff" * 24)
    low, high, msix, *rest = struct.unpack("<6I", space.read(0x10, 24))
    assert low & 0xF == 0xC, "64 bits, prefetchable"
    assert (1 << 64) - ((high << 32) | (low & ~0xF)) == 32 << 20
    assert (1 << 32) - msix == 0x4000
    assert rest == [0, 0, 0]


def test_read_only_bits():
    """Mutation: no mask."""
    space = ConfigSpace(PciIdentity())
    before = space.read(0, 0x10)
    space.write(0, b"\xff" * 4)
    space.write(6, b"\xff\xff")
    assert space.read(0, 4) == before[:4] and word(space, 6) == 0x10
    space.write(4, b"\xff\xff")
    assert word(space, 4) == 0x0547
    space.write(SIZE - 4, b"\xff" * 4)
    assert space.read(SIZE - 4, 4) == bytes(4)


def test_function_level_reset():
    """Mutation: look at the wrong byte of the device control register."""
    resets = []
    space = ConfigSpace(PciIdentity(), on_flr=lambda: resets.append(space.read(4, 2)))
    control = capabilities(space)[0x10] + 8
    assert struct.unpack("<I", space.read(control - 4, 4))[0] & 1 << 28, "offered"
    space.write(4, b"\x06\0")
    space.write(control, struct.pack("<H", 0x2810))
    assert not resets
    space.write(control, struct.pack("<H", 0xA810))
    assert resets == [b"\0\0"]
    assert word(space, control) == 0x2810


def test_power_states():
    """Mutation: D3 cannot be entered."""
    space = ConfigSpace(PciIdentity())
    at = capabilities(space)[0x01] + 4
    space.write(at, b"\x03\0")
    assert word(space, at) & 3 == 3
    space.write(at, b"\0\0")
    assert word(space, at) & 3 == 0
