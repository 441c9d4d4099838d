"""Mappings of this host, and their expected content."""

import ctypes
import re
from pathlib import Path

import pytest

from harness.guest.mm import libc, page_loss
from harness.guest.mm.memory import Memory, pattern
from harness.values.case import MAPPINGS, Region


# The pool of huge pages is the host's, and not ours to change.
@pytest.mark.parametrize("mapping", [mapping for mapping in MAPPINGS if mapping != "hugetlb"])
@pytest.mark.parametrize("method", ["dontneed", "remap", "holes"])
def test_content_is_as_expected_after_each_method(mapping, method):
    """Real mappings of this host. Mutation: let Memory.expect_fresh do nothing."""
    if mapping not in page_loss.METHODS[method].mappings:
        pytest.skip("the method does not work on this mapping")
    memory = Memory(Region(5000, 100, mapping), 1)
    try:
        assert memory.difference() == (0, "")
        memory.fill(1)
        page_loss.METHODS[method].act(memory)
        assert memory.difference() == (0, "")
        kept = mapping == "shared" and method != "remap"
        same = memory.expected[4096:-4096] == pattern(1, 1, memory.size)[4096:-4096]
        assert same == kept
    finally:
        memory.close()


@pytest.mark.parametrize("mapping", ["anonymous", "shared", "file"])
@pytest.mark.parametrize("method", ["none", "dontneed", "remap", "protect", "read_faulted"])
def test_read_only_memory_stays_read_only(mapping, method):
    """Mutations: leave it writable after a fill; map it again with all permissions; let `protect` end with them."""
    memory = Memory(Region(5000, 100, mapping, prot="read"), 1)
    try:
        memory.fill(1)
        page_loss.METHODS[method].act(memory)
        assert memory.difference() == (0, "")
        lines = re.findall(r"^([0-9a-f]+)-[0-9a-f]+ (\S+)", Path("/proc/self/maps").read_text(), re.M)
        permissions = {int(start, 16): flags[:2] for start, flags in lines}
        assert permissions[memory.pages_start] == "r-"
        ctypes.memset(memory.base, 0, 1)
        ctypes.memset(memory.pages_start + memory.pages_bytes, 0, 1)
    finally:
        memory.close()


def test_first_wrong_byte_is_reported():
    """Mutation: take every wrong byte for one of the region."""
    memory = Memory(Region(100, 50), 1)
    try:
        memory.fill(3)
        ctypes.memset(memory.start + 99, 0xEE, 2)
        count, first = memory.difference()
        assert count == 2
        assert first.startswith("region byte 99: expected ")
        memory.fill(3)
        ctypes.memset(memory.start - 1, 0xEE, 1)
        assert memory.difference()[1].startswith("neighbour byte -1: ")
    finally:
        memory.close()


def test_remap_fails_if_the_address_range_is_in_use():
    """Mutation: map with MAP_FIXED again, over the mapping that is in the way."""
    memory = Memory(Region(4096), 1)
    try:
        with pytest.raises(FileExistsError):
            memory._map(memory.pages_start, 4096, 0)
        assert memory.size == 3 * libc.PAGE_BYTES
    finally:
        memory.close()
