"""A region far larger than the memory behind it: each transfer brings in the pages that it touches, and no others.

It is touched at its beginning, its end, and where a driver's updates of the translation table meet: mlx5_ib sends
them in chunks of 1 MiB of 8-byte entries, which is 512 MiB of memory.
Ref: Linux 7.3 drivers/infiniband/hw/mlx5/umr.c, MLX5_MAX_UMR_CHUNK
"""

from __future__ import annotations

import ctypes
from contextlib import ExitStack
from dataclasses import replace
from typing import List

from harness.guest.errors import WorkFailed
from harness.guest.mm import libc, pagemap
from harness.guest.mm.libc import PAGE_BYTES
from harness.guest.rdma import registration as registrations
from harness.guest.rdma import workloads
from harness.guest.rdma.registration import ACCESS_ALL
from harness.guest.scenarios.pair import LOCAL, Pair
from harness.guest.scenarios.registry import scenario, timed_rounds
from harness.values.case import Case, Region

CHUNK_BYTES = 512 << 20
SPOT_PAGES = 4
SPOT_BYTES = SPOT_PAGES * PAGE_BYTES


def spots(length: int) -> List[int]:
    """Return the first page of each touched spot of a region of `length` bytes; one spot spans each chunk's end."""
    boundaries = range(CHUNK_BYTES, length, CHUNK_BYTES)
    starts = [0, *(boundary - SPOT_BYTES // 2 for boundary in boundaries), length - SPOT_BYTES]
    return [start // PAGE_BYTES for start in starts]


class SparseRegion:
    """A large mapping without any page, registered on demand; transfers go between it and a small region of `pair`."""

    def __init__(self, pair: Pair, length: int, stack: ExitStack) -> None:
        flags = libc.MAP_PRIVATE | libc.MAP_ANONYMOUS | libc.MAP_NORESERVE
        self._pair = pair
        self._length = length
        self._start = libc.mmap(0, length, libc.PROT_READ_WRITE, flags)
        stack.callback(libc.munmap, self._start, length)
        libc.madvise(self._start, length, libc.MADV_NOHUGEPAGE)
        self._registration = registrations.register_region(
            pair.connection.context.cmd_fd,
            pair.connection.pd.handle,
            Region(length),
            self._start,
            ACCESS_ALL,
            odp=True,
        )
        stack.callback(pair.deregister, self._registration)

    def transfer(self, page: int, opcode: str) -> None:
        """Transfer between the small region and the spot that begins at `page`."""
        local, remote = self._pair.registrations[LOCAL], self._registration.at(page * PAGE_BYTES)
        workloads.one_sided(self._pair.connection, local, remote, SPOT_BYTES, opcode)()

    def content(self, page: int) -> bytes:
        """Return the bytes of the spot that begins at `page`."""
        return ctypes.string_at(self._start + page * PAGE_BYTES, SPOT_BYTES)

    def invalidate(self) -> None:
        """Drop all pages with one MADV_DONTNEED."""
        libc.madvise(self._start, self._length, libc.MADV_DONTNEED)

    def check_present(self, expected: int, when: str) -> None:
        """Raise WorkFailed unless exactly so many pages exist; swapped and migrating ones count."""
        count = pagemap.held(self._start, self._length // PAGE_BYTES)
        if count != expected:
            raise WorkFailed(f"{when}: {count} pages are present, not {expected}")


@scenario("sparse")
def sparse(case: Case) -> List[int]:
    """Write all spots and compare; drop all pages by one call, and read zeros back."""
    work = case.workload
    small = replace(work.local, length=SPOT_BYTES)
    with ExitStack() as stack:
        pair = Pair(replace(case, workload=replace(work, local=small, remote=small)), stack)
        region = SparseRegion(pair, work.remote.length, stack)
        return timed_rounds(case, lambda number: _round(pair, region, spots(work.remote.length), number))


def _round(pair: Pair, region: SparseRegion, pages: List[int], number: int) -> None:
    source = pair.memories[LOCAL]
    written = {}
    for nth, page in enumerate(pages):
        source.fill(number * len(pages) + nth)
        written[page] = bytes(source.expected[source.first : source.first + SPOT_BYTES])
        region.transfer(page, "RDMA_WRITE")
        region.check_present(SPOT_PAGES * (nth + 1), f"round {number}, written at page {page}")
    for page, data in written.items():
        if region.content(page) != data:
            raise WorkFailed(f"data: round {number}: the spot at page {page} is not as it was written")
    region.invalidate()
    for nth, page in enumerate(pages):
        source.fill(number)
        region.transfer(page, "RDMA_READ")
        source.expected[source.first : source.first + SPOT_BYTES] = bytes(SPOT_BYTES)
        wrong, first = source.difference()
        if wrong:
            raise WorkFailed(f"data: round {number}: read at page {page}: {wrong} bytes are wrong: {first}")
        region.check_present(SPOT_PAGES * (nth + 1), f"round {number}, read at page {page}")
    region.invalidate()
