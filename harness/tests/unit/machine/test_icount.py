"""The instruction count of a saved machine, and the counts that QEMU can record from."""

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.errors import SetupError
from harness.machine import icount

NAME = b"timer/icount"


def test_the_count_is_found_in_a_state_file(tmp_path):
    """Mutation: take the ns added for idle time; read little endian."""
    (tmp_path / "state").write_bytes(
        b"QEVM\0" + NAME + struct.pack(">Iqq", 1, -5, 26_282_144_985) + b"\5\nmore"
    )
    assert icount.counted(tmp_path / "state") == 26_282_144_985


@pytest.mark.parametrize(
    "rest", [b"", struct.pack(">Iq", 1, 0), struct.pack(">Iqq", 2, 0, 0), struct.pack(">Iqq", 1, 0, -1)]
)
def test_a_state_without_a_count_is_an_error(tmp_path, rest):
    """Mutation: take any version for the known one."""
    (tmp_path / "state").write_bytes(b"QEVM" + NAME + rest)
    with pytest.raises(SetupError, match="no instruction count"):
        icount.counted(tmp_path / "state")


@given(st.integers(0, 1 << 40), st.integers(0, 1 << 27))
def test_after_the_spin_the_difference_has_no_sign(count, more):
    """Compute what QEMU does, some way into a case. Mutation: spin to half a round; never spin."""
    count += icount.to_spin(count) + more
    assert 0 <= count % (1 << 32) < 1 << 31


def test_a_machine_that_can_be_recorded_does_not_spin():
    """Mutation: spin always."""
    assert icount.to_spin(26_282_144_985) == 0
    assert icount.to_spin(25_714_075_603) > 0
