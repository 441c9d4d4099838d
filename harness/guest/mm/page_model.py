"""The page-state model: what memory management and a driver do to the pages of one region.

The expected counts of a case follow from it. A page has one state for the CPU and one for the device; page_loss.py and
workloads.py change both by the rules below, which say when the driver has to request pages (a fault) and when it
gets an invalidation. All counts are exact; nothing is timed.

Rules of memory management, observed on Linux 6.1 to 7.3 (Ref: drivers/infiniband/core/umem_odp.c, mm/memory.c,
mm/hmm.c):

1. A fault makes one call of ib_umem_odp_map_dma_and_lock for a whole range of pages, however many are absent.
2. A call that only reads maps a page writable when the CPU has it writable, else read-only.
3. A CPU or device write to a private page that is mapped read-only (the zero page, a page of the file, or shared
   with a forked child) copies it: one invalidation of that page.
4. A write to a page that is not mapped at all copies nothing: no invalidation.
5. madvise, munmap, mprotect and fork invalidate the region's range once; reclaim and migration invalidate page by
   page. (Before 6.2 unmapping hugetlb pages invalidated twice. Ref: mm/hugetlb.c, __unmap_hugepage_range; "hugetlb:
   remove duplicate mmu notifications".)
6. The first read of a hugetlb page allocates it: there is no zero page for it, so a write copies nothing.
7. In read-only memory a fault maps pages read-only; to fill them mprotect makes them writable, then read-only again:
   one invalidation of the region's range each.

Rules of a driver (`DriverRules`): how many pages it requests at a time, and with which access. Those of soft-RoCE were
observed on 7.2 and 7.3, those of mlx5 with the emulated card on 6.1, 6.12, 7.2 and 7.3, where they are the same.
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


class DriverRules(NamedTuple):
    """Rules by which a driver requests pages.

    `packets`: each packet of a message requests its whole range; else a message requests all pages from its first
    absent one on. `writable`: it requests write access even to read, if the region has it. `max_pages`: limit of one
    fault, 0 for none; where there is one, a fault counts in pages and not in bytes, so that one on a region that begins
    inside of its first page ends inside of the page behind.
    """

    packets: bool
    writable: bool
    max_pages: int = 0


# Ref: Linux 7.3 drivers/infiniband/sw/rxe/rxe_odp.c, rxe_odp_mr_copy
RXE = DriverRules(packets=True, writable=False)
# Ref: Linux 7.3 drivers/infiniband/hw/mlx5/odp.c, pagefault_real_mr; mlx5_ib_mr_memory_pfault_handler with
# permissive_fault. The limit is the emulated card's. Ref: connectx, MAX_DEMAND
MLX5_TRANSPORT = DriverRules(packets=False, writable=True)
MLX5_MEMORY = DriverRules(packets=False, writable=True, max_pages=512)

# mlx5_ib zaps runs of pages, and ends one only at an absent page whose number is a multiple of this.
# Ref: Linux 7.3 drivers/infiniband/hw/mlx5/odp.c, mlx5_ib_invalidate_range, umr_block_mask
ZAP_ALIGNMENT = 8


def unmap_invalidations(mapping: str, release: str) -> int:
    """Return how many invalidations one unmap of such a mapping makes on a kernel of this release."""
    major, minor = (int(part) for part in release.split("-")[0].split(".")[:2])
    return 2 if mapping == "hugetlb" and (major, minor) < (6, 2) else 1


class PageModel:
    """The pages of one region; `unmap_invalidations` is from the function of that name.

    `faults`, `invalidations` and `snapshots` count calls into the driver. The rest is what mlx5 does then: the
    `fault_pages` requested by all faults, `handled` invalidations that found any page of the region mapped, `zaps` of
    translations, and `zapped_pages` as its counter has them.
    """

    def __init__(self, region: Region, rules: DriverRules = RXE, unmap_invalidations: int = 1) -> None:
        self.region = region
        self.unmap_invalidations = unmap_invalidations
        self.rules = rules
        self.private = region.mapping != "shared"
        self.read_only = region.prot == "read"
        self.cpu: List[int] = [NONE] * page_count(region)
        self.device: List[int] = [ABSENT] * len(self.cpu)
        self.registered = False
        self.faults = 0
        self.invalidations = 0
        self.snapshots = 0
        self.fault_pages = 0
        self.handled = 0
        self.zaps = 0
        self.zapped_pages = 0

    def register(self) -> None:
        """Register: the device gets a snapshot of what the CPU has mapped, without a fault."""
        self.registered = True
        if not self.region.odp:
            # The pages are pinned, writable, and stay so for the device.
            for page in range(len(self.cpu)):
                self._cpu_write(page)
            return
        self.snapshots += 1
        for page in range(len(self.cpu)):
            self._map(page, False)

    def deregister(self) -> None:
        """Deregister: unmap all pages from the device, without an invalidation."""
        self.registered = False
        self.device = [ABSENT] * len(self.cpu)

    def write_all(self) -> None:
        """Write every page by the CPU; read-only pages are writable meanwhile."""
        if self.read_only:
            self._invalidate(range(len(self.cpu)))
        for page in range(len(self.cpu)):
            self._cpu_write(page)
        if self.read_only:
            self._invalidate(range(len(self.cpu)))

    def read_all(self) -> None:
        """Read every page by the CPU, which maps those that are not."""
        for page in range(len(self.cpu)):
            self._cpu_read(page)

    def unmap_all(self) -> None:
        """Unmap all pages by one call (madvise, munmap)."""
        self.unmap(range(len(self.cpu)))

    def unmap(self, pages: range) -> None:
        """Unmap a range of pages by one call: one invalidation (two for hugetlb before 6.2)."""
        for page in pages:
            self.cpu[page] = NONE
        for _ in range(self.unmap_invalidations):
            self._invalidate(pages)

    def swap_out(self) -> None:
        """Swap the pages out one by one, an invalidation each; zero pages and pages of the file stay."""
        for page, state in enumerate(self.cpu):
            if state in (WRITABLE, ALONE):
                self.cpu[page] = SWAPPED
                self._invalidate((page,))

    def migrate(self) -> None:
        """Migrate the pages one by one, an invalidation each; nothing changes for the CPU."""
        for page, state in enumerate(self.cpu):
            if state in (WRITABLE, ALONE):
                self._invalidate((page,))

    def protect(self) -> None:
        """Make the pages read-only and writable again, an invalidation each; nothing changes for the CPU."""
        for _ in range(2):
            self._invalidate(range(len(self.cpu)))

    def fork(self) -> None:
        """Share the private pages with a child, read-only for both: one invalidation of the whole range."""
        self.cpu = [FORKED if state in (WRITABLE, ALONE) else state for state in self.cpu]
        self._invalidate(range(len(self.cpu)))

    def child_gone(self) -> None:
        """End the sharing: the child has exited, its pages are still mapped read-only."""
        self.cpu = [ALONE if state == FORKED else state for state in self.cpu]

    def transfer(self, mtu_bytes: int, write: bool) -> None:
        """Access the whole region by the device, as one message."""
        length = self.region.length
        for offset, size in packets(length, mtu_bytes if self.rules.packets else length):
            self.access(offset, size, write)

    def access(self, offset: int, length: int, write: bool) -> None:
        """Access `length` bytes from `offset` of the region on by the device, as one packet or message."""
        if not self.region.odp:
            return
        first = (self.region.offset + offset) // PAGE_BYTES
        last = (self.region.offset + offset + length - 1) // PAGE_BYTES
        needed = WRITE if write else READ
        while True:
            absent = [page for page in range(first, last + 1) if self.device[page] < needed]
            if not absent:
                return
            pages = self._requested(first if self.rules.packets else absent[0], last)
            self._fault(pages, write or (self.rules.writable and not self.read_only))

    def _requested(self, first: int, last: int) -> range:
        limit = self.rules.max_pages
        if not limit:
            return range(first, last + 1)
        end = first + min(last - first + 1, limit)
        if first == 0 and self.region.offset:
            end += 1
        return range(first, min(end, len(self.cpu)))

    def _fault(self, pages: range, write: bool) -> None:
        self.faults += 1
        self.fault_pages += len(pages)
        for page in pages:
            if write:
                self._cpu_write(page)
            else:
                self._cpu_read(page)
        for page in pages:
            self._map(page, write)

    def _map(self, page: int, write: bool) -> None:
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
            self.handled += 1
            self.zaps += calls
            self.zapped_pages += counted
        for page in pages:
            self.device[page] = ABSENT


def packets(length: int, mtu_bytes: int) -> Tuple[Tuple[int, int], ...]:
    """Split one message of `length` bytes: (offset, length) of each packet."""
    return tuple((at, min(mtu_bytes, length - at)) for at in range(0, length, mtu_bytes))


def zapped(device: Sequence[int], pages: Sequence[int]) -> Tuple[int, int]:
    """Return how often mlx5_ib zaps translations when `pages` are invalidated, and how many pages it counts then.

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
