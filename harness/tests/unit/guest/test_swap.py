"""The header of a swap area."""

import struct

from harness.guest.mm import swap


def test_swap_header_ends_with_its_signature():
    page = swap.swap_header(64 << 20)
    assert len(page) == 4096
    assert page[-10:] == b"SWAPSPACE2"
    assert struct.unpack_from("=III", page, 1024) == (1, (64 << 20) // 4096 - 1, 0)
