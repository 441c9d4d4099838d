"""A region far larger than the memory that is behind it: each transfer brings the pages that it touches, and no other.

The places where it is touched are its beginning, its end, and where the tables of a driver have their seams: mlx5_ib
tells a card of pages in pieces of 1 MiB of 8-byte entries, which is 512 MiB of memory.
Ref: Linux 7.3 drivers/infiniband/hw/mlx5/umr.c, MLX5_MAX_UMR_CHUNK
"""

from __future__ import annotations

import ctypes
import time
from contextlib import ExitStack
from dataclasses import replace
from typing import List

from harness.guest.errors import WorkFailed
from harness.guest.mm import libc, pagemap
from harness.guest.mm.libc import PAGE_BYTES
from harness.guest.rdma import registration as registrations
from harness.guest.rdma import workloads
from harness.guest.rdma.registration import ACCESS_ALL
from harness.guest.scenarios.pair import (
    LOCAL,
    Pair,
)
from harness.values.case import Case, Region

SEAM_BYTES = 512 << 20
SPOT_PAGES = 4
SPOT_BYTES = SPOT_PAGES * PAGE_BYTES


def spots(length: int) -> List[int]:
    """Where a region of `length` bytes is touched: first page of each spot. Around each seam lies one spot."""
    seams = range(SEAM_BYTES, length, SEAM_BYTES)
    at = [0, *(seam - SPOT_BYTES // 2 for seam in seams), length - SPOT_BYTES]
    return [place // PAGE_BYTES for place in at]


class Wide:
    """A mapping of nothing yet, registered on demand, and written from a small region of `pair`."""

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
        """One transfer between the small region and the spot that begins at `page`."""
        here, there = self._pair.registrations[LOCAL], self._registration.at(page * PAGE_BYTES)
        workloads.one_sided(self._pair.connection, here, there, SPOT_BYTES, opcode)()

    def found(self, page: int) -> bytes:
        """What a spot holds."""
        return ctypes.string_at(self._start + page * PAGE_BYTES, SPOT_BYTES)

    def lose(self) -> None:
        """All of it is taken away by one call."""
        libc.madvise(self._start, self._length, libc.MADV_DONTNEED)

    def check_present(self, expected: int, when: str) -> None:
        """WorkFailed unless so many pages are there. Where memory is scarce some may be swapped, or moved."""
        there = pagemap.held(self._start, self._length // PAGE_BYTES)
        if there != expected:
            raise WorkFailed(f"{when}: {there} pages are there, not {expected}")


def sparse(case: Case) -> List[int]:
    """Each round all spots are written, compared, lost at once, and read back as nothing."""
    times: List[int] = []
    work = case.workload
    small = replace(work.local, length=SPOT_BYTES)
    with ExitStack() as stack:
        pair = Pair(replace(case, workload=replace(work, local=small, remote=small)), stack)
        wide = Wide(pair, work.remote.length, stack)
        for turn in range(1, work.rounds + 1):
            began = time.monotonic_ns()
            _round(pair, wide, spots(work.remote.length), turn)
            times.append(time.monotonic_ns() - began)
    return times


def _round(pair: Pair, wide: Wide, places: List[int], turn: int) -> None:
    source = pair.memories[LOCAL]
    written = {}
    for number, page in enumerate(places):
        source.fill(turn * len(places) + number)
        written[page] = bytes(source.expected[source.first : source.first + SPOT_BYTES])
        wide.transfer(page, "RDMA_WRITE")
        wide.check_present(SPOT_PAGES * (number + 1), f"round {turn}, written at page {page}")
    for page, data in written.items():
        if wide.found(page) != data:
            raise WorkFailed(f"data: round {turn}: the spot at page {page} is not as it was written")
    wide.lose()
    for number, page in enumerate(places):
        source.fill(turn)
        wide.transfer(page, "RDMA_READ")
        source.expected[source.first : source.first + SPOT_BYTES] = bytes(SPOT_BYTES)
        wrong, first = source.difference()
        if wrong:
            raise WorkFailed(f"data: round {turn}: read at page {page}: {wrong} bytes are wrong: {first}")
        wide.check_present(SPOT_PAGES * (number + 1), f"round {turn}, read at page {page}")
    wide.lose()
