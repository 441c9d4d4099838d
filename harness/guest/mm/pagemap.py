"""/proc pagemap: pages present in memory, and page frames that a case leaked.

A frame that no process maps any more and that was not freed is a leak. A lost page reference shows nowhere else: it is
no pin, no verbs object, no counter of a process.
Ref: Linux 7.3 Documentation/admin-guide/mm/pagemap.rst; include/uapi/linux/kernel-page-flags.h
"""

from __future__ import annotations

import os
import time
from array import array
from typing import List, Set, Tuple, Union

from harness.guest.mm import libc
from harness.guest.mm.libc import PAGE_BYTES
from harness.values.answer import Leak

_PAGEMAP = "/proc/{}/pagemap"
_FLAGS = "/proc/kpageflags"
_MAPPED = "/proc/kpagecount"
_ENTRY = 8
_PRESENT, _SWAPPED = 1 << 63, 1 << 62
# Entries read at a time: most of a large region is empty.
_CHUNK = 4096
_FRAME = (1 << 55) - 1
_SWAPCACHE, _SWAPBACKED, _HWPOISON = 1 << 13, 1 << 14, 1 << 19
# Address spaces and sockets are freed a little after the call that released them.
_TRIES = 20
_NAP_S = 0.01


class Frames:
    """Page frames behind some memory, recorded whenever they may have changed."""

    def __init__(self) -> None:
        self._seen: Set[int] = set()

    def record(self, start: int, pages: int, pid: Union[int, str] = "self") -> None:
        """Record the frames of `pages` pages from the address `start` on, of this process or of another."""
        self._seen.update(frames(start, pages, pid))

    def leaked(self) -> Tuple[Leak, ...]:
        """Return a leak if recorded frames are neither mapped nor free, but still anonymous or shmem pages."""
        left = self._seen
        for attempt in range(_TRIES):
            # A page in a CPU's batch for the LRU is not free yet.
            libc.drain_lru()
            left = {frame for frame in left if _unfreed(frame)}
            if not left:
                return ()
            if attempt < _TRIES - 1:
                time.sleep(_NAP_S)
        return (Leak("pages neither mapped nor freed", 0, len(left)),)


def present(start: int, pages: int) -> int:
    """Count the pages in memory, of `pages` pages from the address `start` on; faults in none."""
    return _count(start, pages, _PRESENT)


def held(start: int, pages: int) -> int:
    """Count the pages that have content: in memory, in swap, or under migration."""
    return _count(start, pages, _PRESENT | _SWAPPED)


def frames(start: int, pages: int, pid: Union[int, str] = "self") -> List[int]:
    """Return the frame numbers of the pages in memory, in order."""
    return [entry & _FRAME for entry in _entries(start, pages, _PRESENT, pid)]


def _count(start: int, pages: int, flags: int) -> int:
    chunks = range(0, pages, _CHUNK)
    return sum(
        len(_entries(start + at * PAGE_BYTES, min(_CHUNK, pages - at), flags, "self")) for at in chunks
    )


def _entries(start: int, pages: int, flags: int, pid: Union[int, str]) -> List[int]:
    """Return the page map entries that have one of the flags."""
    data = _read(_PAGEMAP.format(pid), start // PAGE_BYTES, pages)
    if not data.strip(bytes(1)):
        return []
    return [entry for entry in array("Q", data) if entry & flags]


def _unfreed(frame: int) -> bool:
    flags = _number(_FLAGS, frame)
    # A frame taken out of use (hwpoison) has no references left: otherwise it could not have been.
    interesting = flags & (_SWAPBACKED | _SWAPCACHE | _HWPOISON)
    return interesting == _SWAPBACKED and not _number(_MAPPED, frame)


def _number(path: str, index: int) -> int:
    return int.from_bytes(_read(path, index, 1), "little")


def _read(path: str, index: int, count: int) -> bytes:
    fd = os.open(path, os.O_RDONLY)
    try:
        return os.pread(fd, count * _ENTRY, index * _ENTRY)
    finally:
        os.close(fd)
