"""Pages and frames of this process on this host's kernel; frame numbers need root."""

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
def test_mapped_and_freed_frames_are_no_leak(memory, monkeypatch):
    """Freed frames are reused at once on a busy host, so their flags are patched here.

    Mutations: take any frame for a leak; record nothing.
    """
    ctypes.memset(memory, 1, 8 * PAGE_BYTES)
    frames = Frames()
    frames.record(memory, 8)
    if not any(frames._seen) or not os.access("/proc/kpageflags", os.R_OK):
        pytest.skip("this kernel hides frame numbers here")
    assert len(frames._seen) == 8
    assert frames.leaked() == ()
    monkeypatch.setattr("harness.guest.mm.pagemap._NAP_S", 0)
    monkeypatch.setattr(
        "harness.guest.mm.pagemap._number", lambda path, index: 1 << 10 if "flags" in path else 0
    )
    assert frames.leaked() == ()
    monkeypatch.setattr(
        "harness.guest.mm.pagemap._number", lambda path, index: 1 << 14 if "flags" in path else 0
    )
    (leak,) = frames.leaked()
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
def test_anonymous_frame_without_a_mapping_is_unfreed(monkeypatch, flags, mapped, unfreed):
    """The swap cache owns its frames, a poisoned one has no owner. Mutation: test any flag alone."""
    monkeypatch.setattr(pagemap, "_number", lambda path, index: flags if "flags" in path else mapped)
    assert pagemap._unfreed(77) is unfreed


@pytest.mark.skipif(not os.access("/proc/self/pagemap", os.R_OK), reason="no page map here")
def test_pages_in_memory_are_counted_without_faults(memory, monkeypatch):
    """Mutation: count entries of absent pages; leave the last chunk out."""
    monkeypatch.setattr(pagemap, "_CHUNK", 3)
    libc.madvise(memory, 8 * PAGE_BYTES, libc.MADV_NOHUGEPAGE)
    assert pagemap.present(memory, 8) == 0
    for page in (2, 3, 7):
        ctypes.memset(memory + page * PAGE_BYTES, 1, 1)
    assert pagemap.present(memory, 8) == 3
