"""The memory of one region, and its expected content.

    | no access | guard page | the region's pages ... | guard page | no access |

The region begins `offset` bytes into its first page; huge pages are whole and aligned. The bytes around it, to the
ends of the guard pages, are its neighbours: no transfer may change them. `expected` is updated by every fill,
invalidation and transfer, so that the memory can be compared at any time.
"""

from __future__ import annotations

import ctypes
import os
from array import array
from functools import lru_cache
from typing import List, Optional, Tuple

from harness.guest.mm import hugepages, libc
from harness.guest.mm.libc import PAGE_BYTES
from harness.guest.mm.userfaultfd import DelayedFaults
from harness.values.case import Region

_FILE_TAG = 0xF11E
_MAP_KINDS = {
    "anonymous": libc.MAP_PRIVATE | libc.MAP_ANONYMOUS,
    "shared": libc.MAP_SHARED | libc.MAP_ANONYMOUS,
    "file": libc.MAP_PRIVATE,
    "thp": libc.MAP_PRIVATE | libc.MAP_ANONYMOUS,
    "hugetlb": libc.MAP_PRIVATE | libc.MAP_ANONYMOUS | libc.MAP_HUGETLB,
}
HUGE = ("thp", "hugetlb")
WORD_BYTES = 8


def page_count(region: Region) -> int:
    """Count the pages that the region touches."""
    return -(-(region.offset + region.length) // PAGE_BYTES)


def word_offsets(region: Region) -> List[int]:
    """Return the offsets in the region of the first aligned word of each of its pages."""
    aligned = -(-region.offset // WORD_BYTES) * WORD_BYTES
    # The first page may end before its first aligned word.
    starts = sorted({max(aligned, page * PAGE_BYTES) - region.offset for page in range(page_count(region))})
    return [at for at in starts if at + WORD_BYTES <= region.length]


def holes(pages: int) -> List[range]:
    """Return runs of pages to invalidate: every eighth but the first, one by one; then the second half at once."""
    return [*(range(page, page + 1) for page in range(8, pages, 8)), range(pages // 2, pages)]


def pattern(tag: int, number: int, length: int) -> bytes:
    """Return `length` bytes (a multiple of 8): each 8-byte word has its index, the tag and the round's number."""
    data = bytearray(_indices(length))
    for at, byte in enumerate(((tag & 0xFFFF) << 16 | number & 0xFFFF).to_bytes(4, "little"), 4):
        data[at::WORD_BYTES] = bytes((byte,)) * (length // WORD_BYTES)
    return bytes(data)


@lru_cache(maxsize=2)
def _indices(length: int) -> bytes:
    """Return 8-byte words 0, 1, 2...; cached, since for huge pages this took longer than all else of a fill."""
    return array("Q", range(length // WORD_BYTES)).tobytes()


class Memory:
    """A mapping around one region, as drawn above. `tag` distinguishes the patterns of several memories."""

    def __init__(self, region: Region, tag: int) -> None:
        self.region = region
        self._huge = region.mapping in HUGE
        self.pages = page_count(region)
        if self._huge:
            self.pages = -(-self.pages * PAGE_BYTES // hugepages.BYTES) * hugepages.BYTES // PAGE_BYTES
        self.pages_bytes = self.pages * PAGE_BYTES
        self.size = self.pages_bytes + 2 * PAGE_BYTES
        self._tag = tag
        self._prot = libc.PROT_READ if region.prot == "read" else libc.PROT_READ_WRITE
        self._file: Optional[int] = None
        self._delayed: Optional[DelayedFaults] = None
        if region.mapping == "file":
            self._file = os.memfd_create("odp-region")
            os.write(self._file, pattern(_FILE_TAG, tag, self.size))
        self._pool = hugepages.Reserved(self.pages_bytes if region.mapping == "hugetlb" else 0)
        self._reserved_bytes = self.size + 2 * PAGE_BYTES + (hugepages.BYTES if self._huge else 0)
        self._reserved = libc.mmap(
            0, self._reserved_bytes, libc.PROT_NONE, libc.MAP_PRIVATE | libc.MAP_ANONYMOUS
        )
        self.pages_start = self._reserved + 2 * PAGE_BYTES
        if self._huge:
            self.pages_start = -(-self.pages_start // hugepages.BYTES) * hugepages.BYTES
        self.base = self.pages_start - PAGE_BYTES
        self.start = self.pages_start + region.offset
        self.expected = bytearray(self.size)
        self._map(self.base, self.size, 0)
        if self._huge:
            libc.munmap(self.pages_start, self.pages_bytes)
            self._map(self.pages_start, self.pages_bytes, 0)
        self._allow(self._prot)
        self.expected[:] = self._fresh(0, self.size)

    @property
    def first(self) -> int:
        """Return the index of the region's first byte in `expected`."""
        return PAGE_BYTES + self.region.offset

    def fill(self, number: int) -> None:
        """Write the pattern of round `number` to the whole memory; read-only pages are writable meanwhile."""
        data = pattern(self._tag, number, self.size)
        self._allow(libc.PROT_READ_WRITE)
        ctypes.memmove(self.base, data, self.size)
        self._allow(self._prot)
        self.expected[:] = data

    def advise(self, advice: int, pages: Optional[range] = None) -> None:
        """Call madvise(2) once for the region's pages, or a range of them."""
        at = range(self.pages) if pages is None else pages
        libc.madvise(self.pages_start + at.start * PAGE_BYTES, len(at) * PAGE_BYTES, advice)

    def addresses(self) -> range:
        """Return the addresses of the region's pages; of huge pages where it has those."""
        step = hugepages.BYTES if self._huge else PAGE_BYTES
        return range(self.pages_start, self.pages_start + self.pages_bytes, step)

    def protect(self, pages: Optional[range] = None) -> None:
        """Call mprotect(2) twice for the region's pages, or a range: remove a permission, then restore it."""
        at = range(self.pages) if pages is None else pages
        forbidding = libc.PROT_READ if self._prot == libc.PROT_READ_WRITE else libc.PROT_NONE
        for protection in (forbidding, self._prot):
            libc.mprotect(self.pages_start + at.start * PAGE_BYTES, len(at) * PAGE_BYTES, protection)

    def advise_all(self, advice: int) -> None:
        """Call madvise(2) for the whole memory, guard pages included."""
        libc.madvise(self.base, self.size, advice)

    def delay_faults(self) -> None:
        """Resolve faults on absent pages of the region late from now on (userfaultfd)."""
        if self._delayed is None:
            self._delayed = DelayedFaults(self.pages_start, self.pages_bytes)

    def stop_delaying(self) -> None:
        """Resolve faults at once again, pending ones too."""
        if self._delayed is not None:
            self._delayed.close()
            self._delayed = None

    def read_each_page(self) -> None:
        """Read a byte of each of the region's pages, by the CPU."""
        for at in range(self.pages_start, self.pages_start + self.pages_bytes, PAGE_BYTES):
            ctypes.string_at(at, 1)

    def remap(self) -> None:
        """Unmap the region's pages and map fresh ones at the same address."""
        libc.munmap(self.pages_start, self.pages_bytes)
        self._map(self.pages_start, self.pages_bytes, PAGE_BYTES)
        self.expect_fresh()

    def expect_fresh(self, pages: Optional[range] = None) -> None:
        """Expect the content of a fresh mapping in the region's pages, or a range of them."""
        at = range(self.pages) if pages is None else pages
        first, length = (1 + at.start) * PAGE_BYTES, len(at) * PAGE_BYTES
        self.expected[first : first + length] = self._fresh(first, length)

    def content(self) -> bytes:
        """Return the bytes of the memory as they are now."""
        return ctypes.string_at(self.base, self.size)

    def difference(self) -> Tuple[int, str]:
        """Return the number of wrong bytes, and a text about the first one."""
        content = self.content()
        if content == self.expected:
            return 0, ""
        wrong = [at for at, (a, b) in enumerate(zip(content, self.expected)) if a != b]
        at = wrong[0]
        offset = at - self.first
        where = "region" if 0 <= offset < self.region.length else "neighbour"
        word = slice(at, at + 8)
        expected, found = self.expected[word].hex(), content[word].hex()
        return len(wrong), f"{where} byte {offset}: expected {expected}, found {found}"

    def close(self) -> None:
        """Unmap everything."""
        self.stop_delaying()
        libc.munmap(self._reserved, self._reserved_bytes)
        self._pool.close()
        if self._file is not None:
            os.close(self._file)

    def _map(self, address: int, length: int, offset: int) -> None:
        whole = length == self.size
        flags = _MAP_KINDS["anonymous" if whole and self._huge else self.region.mapping]
        # First over our own reservation; later into a hole that nothing else may have taken meanwhile.
        flags |= libc.MAP_FIXED if whole else libc.MAP_FIXED_NOREPLACE
        fd = -1 if self._file is None else self._file
        prot = libc.PROT_READ_WRITE if whole else self._prot
        libc.mmap(address, length, prot, flags, fd, 0 if fd < 0 else offset)
        if whole or not self._huge:
            libc.madvise(address, length, libc.MADV_NOHUGEPAGE)
        elif self.region.mapping == "thp":
            libc.madvise(address, length, libc.MADV_HUGEPAGE)

    def _allow(self, prot: int) -> None:
        """Call mprotect(2) for the region's pages if the region is read-only."""
        if self._prot != libc.PROT_READ_WRITE:
            libc.mprotect(self.pages_start, self.pages_bytes, prot)

    def _fresh(self, offset: int, length: int) -> bytes:
        if self._file is None:
            return bytes(length)
        return pattern(_FILE_TAG, self._tag, self.size)[offset : offset + length]
