"""What the kernel's memory management and a driver do to the pages of one region, as a small model.

The laws of faults.py and workloads.py come from it: a region's page is in one state for the CPU and in one
for the device, each step moves them by the rules below, and the rules say when the driver has to ask for
pages (a fault) and when it is told to forget some (an invalidation). All counts are exact; nothing is timed.

Rules of memory, each seen on Linux 6.1 to 7.3 (Ref: drivers/infiniband/core/umem_odp.c, mm/memory.c, mm/hmm.c):

1. A fault makes one call of ib_umem_odp_map_dma_and_lock for a whole range of pages, however many are absent.
2. A call that only reads maps a page writable when the CPU has it writable, else read-only.
3. A CPU or device write to a private page that is mapped read-only because it is the zero page, a page of the
   file, or shared with a forked child copies it: one invalidation of that page.
4. A write to a page that is not mapped at all copies nothing: no invalidation.
5. madvise, munmap, mprotect and fork tell the driver once for the region's whole range; reclaim and migration tell
   it page by page. (Before 6.2 to unmap huge pages of the kernel's pool is told twice. Ref: mm/hugetlb.c,
   __unmap_hugepage_range; "hugetlb: remove duplicate mmu notifications".)
6. A huge page of the kernel's pool is nobody else's from its first read on: no zero page stands in for it, so a write
   copies nothing.
7. Where the CPU may only read, a fault maps pages read-only; to fill them writing is allowed and forbidden again: one
   invalidation of the region's whole range each.

Rules of a driver (`Rules`): what it asks for at a time, and with which access. Those of soft-RoCE were seen on
7.2 and 7.3, those of mlx5 with the emulated card on 6.1, 6.12, 7.2 and 7.3, where they are the same.
"""

from __future__ import annotations

from typing import List, NamedTuple, Sequence, Tuple

from harness.guest.mm.libc import PAGE_BYTES
from harness.guest.mm.memory import page_count
from harness.values.case import Region

# CPU states: not mapped; read-only zero page or page of the file; writable; private and shared with a living
# child, read-only; the same after the child is gone; in swap.
NONE, SOURCE, WRITABLE, FORKED, ALONE, SWAPPED = range(6)
# Device states.
ABSENT, READ, WRITE = range(3)


class Rules(NamedTuple):
    """How a driver asks for pages.

    `packets`: each packet of a message asks for all of its own range; else a message asks, from its first
    absent page on, for all that is left of it. `writable`: it asks for write access even to read, as the region
    allows it. `most_pages`: of one fault, 0 for any number; where there is a limit, a fault names pages and not
    bytes, so one on the region's first page, which begins inside of it, ends inside of the page behind.
    """

    packets: bool
    writable: bool
    most_pages: int = 0


# Ref: Linux 7.3 drivers/infiniband/sw/rxe/rxe_odp.c, rxe_odp_mr_copy
RXE = Rules(packets=True, writable=False)
# Ref: Linux 7.3 drivers/infiniband/hw/mlx5/odp.c, pagefault_real_mr; mlx5_ib_mr_memory_pfault_handler with
# permissive_fault. The limit is the emulated card's. Ref: connectx, MAX_DEMAND
MLX5_TRANSPORT = Rules(packets=False, writable=True)
MLX5_MEMORY = Rules(packets=False, writable=True, most_pages=512)

# mlx5_ib forgets runs of pages, and ends one only at an absent page whose number is a multiple of this.
# Ref: Linux 7.3 drivers/infiniband/hw/mlx5/odp.c, mlx5_ib_invalidate_range, umr_block_mask
ZAP_ALIGNMENT = 8


def unmaps_told(mapping: str, release: str) -> int:
    """How often a kernel of this release tells the driver of one call that unmaps pages of such a mapping."""
    major, minor = (int(part) for part in release.split("-")[0].split(".")[:2])
    return 2 if mapping == "hugetlb" and (major, minor) < (6, 2) else 1


class PageModel:
    """The pages of one region; `unmaps_told` is what the function of that name says of it.

    `faults`, `invalidations` and `snapshots` count what the driver was asked. The rest is what mlx5 does then:
    `asked_pages` of all faults, `heard` invalidations that found any page of the region mapped, `zaps` of
    translations and the `zapped_pages` as its counter has them.
    """

    def __init__(self, region: Region, rules: Rules = RXE, unmaps_told: int = 1) -> None:
        self.region = region
        self.unmaps_told = unmaps_told
        self.rules = rules
        self.private = region.mapping != "shared"
        self.read_only = region.prot == "read"
        self.cpu: List[int] = [NONE] * page_count(region)
        self.device: List[int] = [ABSENT] * len(self.cpu)
        self.registered = False
        self.faults = 0
        self.invalidations = 0
        self.snapshots = 0
        self.asked_pages = 0
        self.heard = 0
        self.zaps = 0
        self.zapped_pages = 0

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
        """The CPU writes every page; of those that it may only read, it is allowed to for so long."""
        if self.read_only:
            self._invalidate(range(len(self.cpu)))
        for page in range(len(self.cpu)):
            self._cpu_write(page)
        if self.read_only:
            self._invalidate(range(len(self.cpu)))

    def read_all(self) -> None:
        """The CPU reads every page: one that is not mapped is mapped as a read maps it."""
        for page in range(len(self.cpu)):
            self._cpu_read(page)

    def drop(self) -> None:
        """All pages are unmapped by one call (madvise, munmap)."""
        self.lose(range(len(self.cpu)))

    def lose(self, pages: range) -> None:
        """These pages are unmapped by one call: one invalidation, or where that is told twice another of nothing."""
        for page in pages:
            self.cpu[page] = NONE
        for _ in range(self.unmaps_told):
            self._invalidate(pages)

    def swap_out(self) -> None:
        """Reclaim takes the pages one by one: an invalidation each; pages that are only a source stay."""
        for page, state in enumerate(self.cpu):
            if state in (WRITABLE, ALONE):
                self.cpu[page] = SWAPPED
                self._invalidate((page,))

    def migrate(self) -> None:
        """The pages move one by one, an invalidation each; for the CPU they are as they were."""
        for page, state in enumerate(self.cpu):
            if state in (WRITABLE, ALONE):
                self._invalidate((page,))

    def protect(self) -> None:
        """Writing is forbidden, then allowed again: an invalidation each; for the CPU pages are as before."""
        for _ in range(2):
            self._invalidate(range(len(self.cpu)))

    def fork(self) -> None:
        """A child shares the private pages, read-only for both: one invalidation of the whole range."""
        self.cpu = [FORKED if state in (WRITABLE, ALONE) else state for state in self.cpu]
        self._invalidate(range(len(self.cpu)))

    def child_gone(self) -> None:
        """The child has exited: its pages are ours alone, though still mapped read-only."""
        self.cpu = [ALONE if state == FORKED else state for state in self.cpu]

    def transfer(self, mtu_bytes: int, write: bool) -> None:
        """The device touches the whole region, as one message."""
        length = self.region.length
        for offset, size in packets(length, mtu_bytes if self.rules.packets else length):
            self.access(offset, size, write)

    def access(self, offset: int, length: int, write: bool) -> None:
        """The device touches `length` bytes from `offset` of the region on, as one packet or message."""
        if not self.region.odp:
            return
        first = (self.region.offset + offset) // PAGE_BYTES
        last = (self.region.offset + offset + length - 1) // PAGE_BYTES
        wanted = WRITE if write else READ
        while True:
            absent = [page for page in range(first, last + 1) if self.device[page] < wanted]
            if not absent:
                return
            asked = self._asked(first if self.rules.packets else absent[0], last)
            self._fault(asked, write or (self.rules.writable and not self.read_only))

    def _asked(self, first: int, last: int) -> range:
        most = self.rules.most_pages
        if not most:
            return range(first, last + 1)
        end = first + min(last - first + 1, most)
        if first == 0 and self.region.offset:
            end += 1
        return range(first, min(end, len(self.cpu)))

    def _fault(self, pages: range, write: bool) -> None:
        self.faults += 1
        self.asked_pages += len(pages)
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
            self.device[page] = READ if self.read_only else WRITE
        elif state in (SOURCE, FORKED, ALONE) and not write:
            self.device[page] = READ

    def _cpu_read(self, page: int) -> None:
        if self.cpu[page] == NONE and self.region.mapping == "hugetlb":
            self.cpu[page] = ALONE
        elif self.cpu[page] == NONE:
            self.cpu[page] = SOURCE if self.private else WRITABLE
        elif self.cpu[page] == SWAPPED:
            self.cpu[page] = WRITABLE

    def _cpu_write(self, page: int) -> None:
        if self.cpu[page] in (SOURCE, FORKED):
            self._invalidate((page,))
        self.cpu[page] = WRITABLE

    def _invalidate(self, pages: Sequence[int]) -> None:
        if not (self.registered and self.region.odp):
            return
        self.invalidations += 1
        if any(self.device):
            calls, counted = zapped(self.device, pages)
            self.heard += 1
            self.zaps += calls
            self.zapped_pages += counted
        for page in pages:
            self.device[page] = ABSENT


def packets(length: int, mtu_bytes: int) -> Tuple[Tuple[int, int], ...]:
    """How one message of `length` bytes is cut: (offset, length) of each packet."""
    return tuple((at, min(mtu_bytes, length - at)) for at in range(0, length, mtu_bytes))


def zapped(device: Sequence[int], pages: Sequence[int]) -> Tuple[int, int]:
    """How often mlx5_ib zaps translations when it is told to forget `pages`, and how many pages it counts then.

    A run begins at a mapped page; absent pages inside of it are part of it and are counted, and so is the one
    that ends it.
    """
    calls = counted = 0
    begin = -1
    for page in pages:
        if device[page]:
            begin = page if begin < 0 else begin
        elif begin >= 0 and page % ZAP_ALIGNMENT == 0:
            calls, counted, begin = calls + 1, counted + page - begin + 1, -1
    if begin >= 0:
        calls, counted = calls + 1, counted + pages[-1] - begin + 1
    return calls, counted
