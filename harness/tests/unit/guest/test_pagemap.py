"""Frames of this process: as root on this host's own kernel, or not at all."""

import ctypes
import os

import pytest

from harness.guest.mm import libc, pagemap
from harness.guest.mm.libc import PAGE_BYTES
from harness.guest.mm.pagemap import Frames


@pytest.fixture
def memory():
    start = libc.mmap(0, 8 * PAGE_BYTES, libc.PROT_READ_WRITE, libc.MAP_PRIVATE | libc.MAP_ANONYMOUS)
    yield start
    libc.munmap(start, 8 * PAGE_BYTES)


@pytest.mark.skipif(os.geteuid() != 0, reason="page frame numbers are root's")
def test_frames_in_use_and_frames_given_back_are_no_leak(memory, monkeypatch):
    """What was given back belongs to others at once on a busy host, so that is told here, not asked.

    Mutations: take any frame for a leak; note nothing.
    """
    ctypes.memset(memory, 1, 8 * PAGE_BYTES)
    frames = Frames()
    frames.note(memory, 8)
    if not any(frames._seen) or not os.access("/proc/kpageflags", os.R_OK):
        pytest.skip("this kernel tells nothing of frames here")
    assert len(frames._seen) == 8
    assert frames.left() == ()
    monkeypatch.setattr("harness.guest.mm.pagemap._NAP_S", 0)
    monkeypatch.setattr(
        "harness.guest.mm.pagemap._number", lambda path, index: 1 << 10 if "flags" in path else 0
    )
    assert frames.left() == ()
    monkeypatch.setattr(
        "harness.guest.mm.pagemap._number", lambda path, index: 1 << 14 if "flags" in path else 0
    )
    (leak,) = frames.left()
    assert leak.after == 8


@pytest.mark.parametrize(
    ("flags", "mapped", "unfreed"),
    [
        (1 << 14, 0, True),
        (1 << 14, 1, False),
        (0, 0, False),
        (3 << 13, 0, False),
        (1 << 14 | 1 << 19, 0, False),
    ],
)
def test_a_frame_of_a_process_that_nobody_maps_is_unfreed(monkeypatch, flags, mapped, unfreed):
    """One in the swap cache is the kernel's, one taken out of use is nobody's. Mutation: ask for any flag alone."""
    monkeypatch.setattr(pagemap, "_number", lambda path, index: flags if "flags" in path else mapped)
    assert pagemap._unfreed(77) is unfreed


@pytest.mark.skipif(not os.access("/proc/self/pagemap", os.R_OK), reason="no page map here")
def test_pages_in_memory_are_counted_and_not_brought(memory, monkeypatch):
    """Mutation: count entries of pages that are not there; leave the last piece out."""
    monkeypatch.setattr(pagemap, "_PIECE", 3)
    libc.madvise(memory, 8 * PAGE_BYTES, libc.MADV_NOHUGEPAGE)
    assert pagemap.present(memory, 8) == 0
    for page in (2, 3, 7):
        ctypes.memset(memory + page * PAGE_BYTES, 1, 1)
    assert pagemap.present(memory, 8) == 3
