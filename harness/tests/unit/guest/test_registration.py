"""Registration commands as bytes, and access flags."""

import struct

import pytest

from harness.guest.rdma import registration
from harness.guest.rdma.registration import ACCESS_ALL, ACCESS_ON_DEMAND, ACCESS_REMOTE_READ
from harness.values.case import Region


def test_reg_mr_is_encoded_in_forty_eight_bytes():
    """Mutation: leave the header out of the word count."""
    data = registration.reg_mr_command(0x1122, 0x7F00, 100, 0xF00, 5, registration.ACCESS_ALL)
    assert len(data) == 48
    assert struct.unpack("=IHHQQQQII", data) == (9, 12, 3, 0x1122, 0x7F00, 100, 0xF00, 5, 15)
    assert registration.dereg_mr_command(7) == struct.pack("=IHHI", 13, 3, 0, 7)


@pytest.mark.parametrize("kind", ["address", "shifted", "zero"])
def test_iova_keeps_the_offset_in_the_page(kind):
    """The kernel refuses any other. Mutation: return 0 for `zero`."""
    assert registration.iova_of(kind, 0x7F12_3456_7890) % 4096 == 0x890


@pytest.mark.parametrize(("prot", "flags"), [("write", ACCESS_ALL), ("read", ACCESS_REMOTE_READ)])
def test_read_only_memory_is_registered_without_write_flags(monkeypatch, prot, flags):
    """Mutation: leave one of them."""
    requested = []
    monkeypatch.setattr(
        registration, "register", lambda fd, pd, start, length, iova, access: requested.append(access)
    )
    registration.register_region(-1, 7, Region(8, prot=prot), 4096, ACCESS_ALL, odp=True)
    assert requested == [flags | ACCESS_ON_DEMAND]
