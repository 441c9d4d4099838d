"""The page frames that a case used: one that nobody maps any more, and that was not freed, is a leak.

A reference to a page that somebody forgot shows nowhere else: it is no pin, no object, no count of a process.
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
_PRESENT, _ELSEWHERE = 1 << 63, 1 << 62
# Of a large region there are more empty pieces than others.
_PIECE = 4096
_FRAME = (1 << 55) - 1
_SWAPCACHE, _SWAPBACKED, _HWPOISON = 1 << 13, 1 << 14, 1 << 19
# Address spaces and sockets are freed a little later than the call that gave them back.
_TRIES = 20
_NAP_S = 0.01


class Frames:
    """The frames behind some memory, noted as often as they may have changed."""

    def __init__(self) -> None:
        self._seen: Set[int] = set()

    def note(self, start: int, pages: int, pid: Union[int, str] = "self") -> None:
        """Remember the frames of `pages` pages from the address `start` on, of this process or of another."""
        self._seen.update(frames(start, pages, pid))

    def left(self) -> Tuple[Leak, ...]:
        """A leak of the frames that nobody maps and that are still memory of a process or of a shared mapping."""
        kept = self._seen
        for attempt in range(_TRIES):
            # A page that a CPU holds for its lists is not free yet.
            libc.drain_lru()
            kept = {frame for frame in kept if _unfreed(frame)}
            if not kept:
                return ()
            if attempt < _TRIES - 1:
                time.sleep(_NAP_S)
        return (Leak("pages that nobody maps and nobody freed", 0, len(kept)),)


def present(start: int, pages: int) -> int:
    """How many of `pages` pages from the address `start` on this process has in memory; looking brings none."""
    return _count(start, pages, _PRESENT)


def held(start: int, pages: int) -> int:
    """How many of them hold something: in memory, in swap, or just on the way to another place."""
    return _count(start, pages, _PRESENT | _ELSEWHERE)


def frames(start: int, pages: int, pid: Union[int, str] = "self") -> List[int]:
    """The frames of those of `pages` pages from the address `start` on that are there, in order."""
    return [entry & _FRAME for entry in _entries(start, pages, _PRESENT, pid)]


def _count(start: int, pages: int, flags: int) -> int:
    pieces = range(0, pages, _PIECE)
    return sum(
        len(_entries(start + at * PAGE_BYTES, min(_PIECE, pages - at), flags, "self")) for at in pieces
    )


def _entries(start: int, pages: int, flags: int, pid: Union[int, str]) -> List[int]:
    """Those of the page map's entries that have one of the flags."""
    data = _read(_PAGEMAP.format(pid), start // PAGE_BYTES, pages)
    if not data.strip(bytes(1)):
        return []
    return [entry for entry in array("Q", data) if entry & flags]


def _unfreed(frame: int) -> bool:
    flags = _number(_FLAGS, frame)
    # Of a frame that was taken out of use nobody has a reference: otherwise it could not have been.
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
