"""Delayed page faults, on this host."""

import ctypes
import os
import time

import pytest

from harness.guest.mm import page_loss, userfaultfd
from harness.guest.mm.memory import Memory
from harness.values.case import Region


def test_delayed_fault_is_resolved_late_with_zeros():
    """Mutations: resolve it at once; never; with something else than zeros."""
    memory = Memory(Region(2 * 4096), 1)
    try:
        memory.fill(1)
        try:
            page_loss.METHODS["userfaultfd"].act(memory)
        except OSError as error:
            pytest.skip(f"no userfaultfd here: {error}")
        began = time.monotonic()
        # Fault in a system call: our own access would hold the GIL, which the resolving thread needs.
        read, write = os.pipe()
        os.write(write, (ctypes.c_char * memory.pages_bytes).from_address(memory.pages_start))
        assert time.monotonic() - began > 1.5 * userfaultfd.DELAY_S
        assert os.read(read, memory.pages_bytes) == bytes(memory.pages_bytes)
        os.close(read)
        os.close(write)
        assert memory.difference() == (0, "")
    finally:
        memory.close()
