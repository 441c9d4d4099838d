"""What the kernel's memory management and soft-RoCE do to the pages of one region, as a small model.

The laws of faults.py and workloads.py come from it: a region's page is in one state for the CPU and in one
for the device, each step moves them by the rules below, and the rules say when the driver has to ask for
pages (a fault) and when it is told to forget some (an invalidation). All counts are exact; nothing is timed.

Rules, each seen on Linux 7.3 (Ref: drivers/infiniband/sw/rxe/rxe_odp.c, drivers/infiniband/core/umem_odp.c,
mm/memory.c, mm/hmm.c of Linux 7.3):

1. A packet that finds a page of its range absent, or read-only when it has to write, makes one call of
   ib_umem_odp_map_dma_and_lock for its whole range: one fault, however many pages.
2. A call that only reads maps a page writable when the CPU has it writable, else read-only.
3. A CPU or device write to a private page that is mapped read-only because it is the zero page, a page of the
   file, or shared with a forked child copies it: one invalidation of that page.
4. A write to a page that is not mapped at all copies nothing: no invalidation.
5. madvise, munmap and fork tell the driver once for the region's whole range; reclaim tells it page by page.
"""

from __future__ import annotations

from typing import Iterable, List, Tuple

from harness.guest.libc import PAGE_BYTES
from harness.guest.memory import page_count
from harness.values.case import Region

# CPU states: not mapped; read-only zero page or page of the file; writable; private and shared with a living
# child, read-only; the same after the child is gone; in swap.
NONE, SOURCE, WRITABLE, FORKED, ALONE, SWAPPED = range(6)
# Device states.
ABSENT, READ, WRITE = range(3)


class PageModel:
    """The pages of one region; `faults`, `invalidations` and `snapshots` count what the driver was asked."""

    def __init__(self, region: Region) -> None:
        self.region = region
        self.private = region.mapping != "shared"
        self.cpu: List[int] = [NONE] * page_count(region)
        self.device: List[int] = [ABSENT] * len(self.cpu)
        self.registered = False
        self.faults = 0
        self.invalidations = 0
        self.snapshots = 0

    def register(self) -> None:
        """Registration takes a snapshot: what the CPU has mapped is mapped for the device, nothing faults."""
        self.registered = True
        if not self.region.odp:
            # The pages are made present and writable, and stay so for the device.
            for page in range(len(self.cpu)):
                self._cpu_write(page)
            return
        self.snapshots += 1
        for page in range(len(self.cpu)):
            self._see(page, False)

    def deregister(self) -> None:
        """The device forgets all pages, silently."""
        self.registered = False
        self.device = [ABSENT] * len(self.cpu)

    def write_all(self) -> None:
        """The CPU writes every page."""
        for page in range(len(self.cpu)):
            self._cpu_write(page)

    def read_all(self) -> None:
        """The CPU reads every page: one that is not mapped is mapped as a read maps it."""
        for page in range(len(self.cpu)):
            self._cpu_read(page)

    def drop(self) -> None:
        """All pages are unmapped by one call (madvise, munmap): one invalidation."""
        self.cpu = [NONE] * len(self.cpu)
        self._invalidate(range(len(self.cpu)))

    def swap_out(self) -> None:
        """Reclaim takes the pages one by one: an invalidation each; pages that are only a source stay."""
        for page, state in enumerate(self.cpu):
            if state in (WRITABLE, ALONE):
                self.cpu[page] = SWAPPED
                self._invalidate((page,))

    def fork(self) -> None:
        """A child shares the private pages, read-only for both: one invalidation of the whole range."""
        self.cpu = [FORKED if state in (WRITABLE, ALONE) else state for state in self.cpu]
        self._invalidate(range(len(self.cpu)))

    def child_gone(self) -> None:
        """The child has exited: its pages are ours alone, though still mapped read-only."""
        self.cpu = [ALONE if state == FORKED else state for state in self.cpu]

    def packet(self, offset: int, length: int, write: bool) -> None:
        """The device touches `length` bytes from `offset` of the region on, as one packet."""
        if not self.region.odp:
            return
        first = (self.region.offset + offset) // PAGE_BYTES
        last = (self.region.offset + offset + length - 1) // PAGE_BYTES
        pages = range(first, last + 1)
        wanted = WRITE if write else READ
        if all(self.device[page] >= wanted for page in pages):
            return
        self.faults += 1
        for page in pages:
            if write:
                self._cpu_write(page)
            else:
                self._cpu_read(page)
        for page in pages:
            self._see(page, write)

    def _see(self, page: int, write: bool) -> None:
        state = self.cpu[page]
        if state == WRITABLE:
            self.device[page] = WRITE
        elif state in (SOURCE, FORKED, ALONE) and not write:
            self.device[page] = READ

    def _cpu_read(self, page: int) -> None:
        if self.cpu[page] == NONE:
            self.cpu[page] = SOURCE if self.private else WRITABLE
        elif self.cpu[page] == SWAPPED:
            self.cpu[page] = WRITABLE

    def _cpu_write(self, page: int) -> None:
        if self.cpu[page] in (SOURCE, FORKED):
            self._invalidate((page,))
        self.cpu[page] = WRITABLE

    def _invalidate(self, pages: Iterable[int]) -> None:
        if self.registered and self.region.odp:
            self.invalidations += 1
            for page in pages:
                self.device[page] = ABSENT


def packets(length: int, mtu_bytes: int) -> Tuple[Tuple[int, int], ...]:
    """How one message of `length` bytes is cut: (offset, length) of each packet."""
    return tuple((at, min(mtu_bytes, length - at)) for at in range(0, length, mtu_bytes))
