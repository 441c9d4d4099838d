"""Guest memory by DMA address."""

import errno
import os
from pathlib import Path

import pytest

from harness.connectx.transport.memory import (
    READ,
    WRITE,
    DmaError,
    MapError,
    Memory,
)

PAGE = 4096


@pytest.fixture
def ram():
    descriptor = os.memfd_create("guest")
    os.ftruncate(descriptor, 8 * PAGE)
    yield descriptor
    os.close(descriptor)


@pytest.fixture
def memory():
    return Memory()


def test_views_are_the_memory_itself(memory, ram):
    """Mutation: return copies."""
    memory.grant(0x1000, PAGE, READ | WRITE, ram, PAGE)
    memory.view(0x1800, 4)[:] = b"here"
    assert os.pread(ram, 4, PAGE + 0x800) == b"here"
    os.pwrite(ram, b"back", PAGE + 0x800)
    assert bytes(memory.view(0x1800, 4)) == b"back"


def test_reads_and_writes_span_maps_and_views_do_not(memory, ram):
    """Mutation: stop at the end of the first map."""
    memory.grant(0x2000, PAGE, READ | WRITE, ram, 0)
    memory.grant(0x1000, PAGE, READ | WRITE, ram, 4 * PAGE)
    memory.write(0x1FFC, b"01234567")
    assert memory.read(0x1FFC, 8) == b"01234567"
    assert os.pread(ram, 4, 5 * PAGE - 4) == b"0123" and os.pread(ram, 4, 0) == b"4567"
    with pytest.raises(DmaError):
        memory.view(0x1FFC, 8)


def test_a_write_that_does_not_fit_writes_nothing(memory, ram):
    """Mutation: write each range while looking for the next one."""
    memory.grant(0x1000, PAGE, READ | WRITE, ram, 0)
    with pytest.raises(DmaError) as problem:
        memory.write(0x1FFC, b"01234567")
    assert (problem.value.address, problem.value.size) == (0x2000, 4)
    assert os.pread(ram, 4, PAGE - 4) == bytes(4)


def test_a_copy_spans_maps_and_may_overlap(memory, ram):
    """Mutation: stop at the end of the first map of either side; copy forward byte by byte."""
    memory.grant(0x1000, PAGE, READ | WRITE, ram, 4 * PAGE)
    memory.grant(0x2000, PAGE, READ | WRITE, ram, 0)
    memory.write(0x1FFC, b"01234567")
    memory.copy(0x1FFC, 0x1100, 8)
    assert memory.read(0x1100, 8) == b"01234567"
    memory.copy(0x1100, 0x1FFA, 8)
    assert memory.read(0x1FFA, 8) == b"01234567"
    memory.copy(0x1100, 0x1102, 8)
    assert memory.read(0x1100, 10) == b"0101234567"


def test_a_copy_that_is_not_granted_moves_nothing(memory, ram):
    """Mutation: look for the source's ranges while moving."""
    memory.grant(0x1000, PAGE, READ | WRITE, ram, 0)
    memory.write(0x1FF8, b"01234567")
    for source, destination in ((0x1FFC, 0x1000), (0x1000, 0x1FFC)):
        with pytest.raises(DmaError):
            memory.copy(source, destination, 8)
    assert memory.read(0x1000, 8) == bytes(8) and memory.read(0x1FF8, 8) == b"01234567"


def test_flags(memory, ram):
    """Mutation: ignore the flags, as a card on a bus without an IOMMU would."""
    memory.grant(0x1000, PAGE, READ, ram, 0)
    memory.grant(0x3000, PAGE, READ | WRITE, None)
    assert memory.read(0x1000, 4) == bytes(4)
    for call in (
        lambda: memory.write(0x1000, b"x"),
        lambda: memory.view(0x1000, 1),
        lambda: memory.read(0x3000, 1),
        lambda: memory.view(0x3000, 1),
    ):
        with pytest.raises(DmaError):
            call()


def test_unmap_while_a_view_exists(memory, ram):
    """The view stays safe to touch, new ones are refused. Mutation: close the mapping by hand."""
    memory.grant(0x1000, PAGE, READ | WRITE, ram, 0)
    view = memory.view(0x1000, 16)
    assert memory.revoke(0x1000, PAGE) == 1
    view[:4] = b"safe"
    with pytest.raises(DmaError):
        memory.view(0x1000, 16)


def test_revoked_maps_are_unmapped(memory, ram):
    """Mutation: keep the views of revoked maps in a list."""

    def mapped():
        return sum("memfd:guest" in line for line in Path("/proc/self/maps").open())

    before = mapped()
    for _ in range(50):
        memory.grant(0x1000, PAGE, READ | WRITE, ram, 0)
        memory.view(0x1000, 16)
        memory.revoke(0x1000, PAGE)
    assert mapped() == before


@pytest.mark.parametrize(
    ("address", "size", "offset", "number"),
    [
        (0x1000, 0, 0, errno.EINVAL),
        ((1 << 64) - PAGE, 2 * PAGE, 0, errno.EINVAL),
        (0x10000, PAGE, 8 * PAGE, errno.EINVAL),
        (0x10000, 9 * PAGE, 0, errno.EINVAL),
        (0x10000, PAGE, 1 << 63, errno.EINVAL),
        (0x4000, PAGE, 0, errno.EEXIST),
        (0x3000, 2 * PAGE, 0, errno.EEXIST),
        (0x5800, PAGE, 0, errno.EEXIST),
    ],
)
def test_invalid_maps_are_refused(memory, ram, address, size, offset, number):
    """Beyond a file's end is a SIGBUS. Mutation: map a page less, and return the whole size."""
    memory.grant(0x4000, 2 * PAGE, READ | WRITE, ram, 0)
    with pytest.raises(MapError) as problem:
        memory.grant(address, size, READ | WRITE, ram, offset)
    assert problem.value.number == number
    assert len(memory.maps) == 1


def test_only_files_are_mapped(memory):
    """A device has no size to compare with. Mutation: mmap whatever comes."""
    for other in (os.eventfd(0), os.open("/dev/zero", os.O_RDWR)):
        with pytest.raises(MapError):
            memory.grant(0x1000, PAGE, READ, other, 0)
        os.close(other)


def test_unmap_does_not_split_a_map(memory, ram):
    """Mutation: drop every map that overlaps."""
    memory.grant(0x1000, 2 * PAGE, READ, ram, 0)
    memory.grant(0x4000, PAGE, READ, ram, 0)
    for address, size in ((0x1000, PAGE), (0x2000, PAGE), (0x2000, 8 * PAGE)):
        with pytest.raises(MapError):
            memory.revoke(address, size)
    assert memory.revoke(0, 0x10000) == 2


def test_a_map_at_an_odd_offset(memory, ram):
    """QEMU's RAM below 1 MiB starts in the middle of a page. Mutation: drop the lead."""
    os.pwrite(ram, b"odd", 0x1234)
    memory.grant(0x9000, 16, READ | WRITE, ram, 0x1234)
    assert memory.read(0x9000, 3) == b"odd"
