"""Page-loss methods: ways to make pages absent before each round, and their effect on the page-state model.

Each `Method` has two functions of the same shape, one for real memory and one for its model. A new method is one more
entry of METHODS; `refusal` rejects workloads that it makes no sense for.
"""

from __future__ import annotations

from contextlib import ExitStack
from typing import Callable, Dict, NamedTuple, Optional, Tuple

from harness.guest.mm import cgroup, libc, numa
from harness.guest.mm.memory import (
    Memory,
    holes,
)
from harness.guest.mm.page_model import PageModel
from harness.values.case import Region, Workload


class Method(NamedTuple):
    """One method: `act` on memory, `model` on its model, a `text`, and the `mappings` on which it works.

    A `fresh` one replaces mapping and registration, and acts between the two. `setup` runs before any memory is
    mapped, and is undone when the stack closes.
    """

    act: Callable[[Memory], None]
    model: Callable[[PageModel], None]
    text: str
    mappings: Tuple[str, ...] = ("anonymous", "shared", "file", "thp", "hugetlb")
    fresh: bool = False
    setup: Optional[Callable[[ExitStack], None]] = None


def nothing(memory: Memory) -> None:
    """Leave all pages present."""


def model_nothing(model: PageModel) -> None:
    """Keep the model as it is: pages that the CPU wrote before registration never fault."""


def read_each_page(memory: Memory) -> None:
    """Read every page: a private mapping then has the zero page, or its file's, read-only."""
    memory.read_each_page()


def model_read_each_page(model: PageModel) -> None:
    """Map every page read-only: the device's first write to each faults, and copies it."""
    model.read_all()


def dontneed(memory: Memory, pages: Optional[range] = None) -> None:
    """Drop pages with MADV_DONTNEED: private memory falls back to zeros or its file, shared memory keeps its bytes."""
    memory.advise(libc.MADV_DONTNEED, pages)
    if memory.region.mapping != "shared":
        memory.expect_fresh(pages)


def model_dontneed(model: PageModel) -> None:
    """Invalidate once; every page is absent."""
    model.unmap_all()


def late(memory: Memory) -> None:
    """Drop all pages with MADV_DONTNEED, and delay each fault by userfaultfd(2)."""
    memory.delay_faults()
    dontneed(memory)


def remap(memory: Memory) -> None:
    """Call munmap, then mmap at the same address: a fresh mapping under an old registration."""
    memory.remap()


def model_remap(model: PageModel) -> None:
    """Invalidate once, by the munmap; every page is absent."""
    model.unmap_all()


def pageout(memory: Memory) -> None:
    """Swap the pages out with MADV_PAGEOUT; they keep their bytes."""
    libc.drain_lru()
    memory.advise(libc.MADV_PAGEOUT)


def model_pageout(model: PageModel) -> None:
    """Invalidate once a page; every page is absent."""
    model.swap_out()


def migrate(memory: Memory) -> None:
    """Migrate each page to another frame with MADV_SOFT_OFFLINE; its own is taken out of use."""
    libc.drain_lru()
    memory.advise(libc.MADV_SOFT_OFFLINE)


def model_migrate(model: PageModel) -> None:
    """Invalidate once a page; every page is absent for the device, and unchanged for the CPU."""
    model.migrate()


def move(memory: Memory) -> None:
    """Migrate each page to the other memory node with move_pages(2)."""
    numa.move(memory.addresses())


def protect(memory: Memory) -> None:
    """Make the pages read-only with mprotect(2), then writable again."""
    memory.protect()


def model_protect(model: PageModel) -> None:
    """Invalidate twice; every page is absent for the device, and unchanged for the CPU."""
    model.protect()


def split(memory: Memory) -> None:
    """Split a huge page by mprotect(2) of one page in the middle."""
    middle = memory.pages // 2
    memory.protect(range(middle, middle + 1))


def reclaim(memory: Memory) -> None:
    """Reclaim the whole control group with memory.reclaim: the pages go to swap and keep their bytes."""
    libc.drain_lru()
    cgroup.reclaim(_WHOLE_GROUP_BYTES)


def punch(memory: Memory) -> None:
    """Drop pages run by run with MADV_DONTNEED: a message finds its first absent page in its middle."""
    for pages in holes(memory.pages):
        dontneed(memory, pages)


def model_punch(model: PageModel) -> None:
    """Invalidate once a run; the last run has pages that are absent already."""
    for pages in holes(len(model.cpu)):
        model.unmap(pages)


def model_fork(model: PageModel) -> None:
    """Invalidate the whole range once; every page is absent for the device and read-only for the CPU."""
    model.fork()


# The sides that an operation writes to, where it is not just the remote one.
_WRITTEN: Dict[str, Tuple[str, ...]] = {
    "read": ("local",),
    "flush": (),
    "compare_swap": ("local", "remote"),
    "fetch_add": ("local", "remote"),
}
# More than any group here is charged.
_WHOLE_GROUP_BYTES = 1 << 30
PRIVATE = ("anonymous", "file", "thp")
SMALL_PAGES = ("anonymous", "shared", "file")

METHODS: Dict[str, Method] = {
    "none": Method(nothing, model_nothing, "no page is absent, so none faults"),
    "untouched": Method(
        nothing, model_nothing, "a fresh mapping, registered untouched, has no page", fresh=True
    ),
    "read_faulted": Method(
        read_each_page, model_read_each_page, "a fresh mapping, only read before it is registered", fresh=True
    ),
    "dontneed": Method(dontneed, model_dontneed, "MADV_DONTNEED of all at once, every page absent"),
    "userfaultfd": Method(
        late, model_dontneed, "MADV_DONTNEED, and each fault is resolved 100 ms late", ("anonymous",)
    ),
    "remap": Method(remap, model_remap, "munmap of all at once and mmap, every page absent"),
    # The fork itself happens once for both sides, in rounds.py, which owns the child.
    "fork": Method(nothing, model_fork, "fork: one invalidation, every page absent, writes copy", PRIVATE),
    "holes": Method(
        punch,
        model_punch,
        "MADV_DONTNEED of every eighth page, then of the second half",
        (*SMALL_PAGES, "thp"),
    ),
    "migrate": Method(
        migrate,
        model_migrate,
        "MADV_SOFT_OFFLINE: one invalidation a page, every page absent",
        (*SMALL_PAGES, "thp"),
    ),
    "move": Method(
        move, model_migrate, "move_pages: one invalidation a page, every page absent", SMALL_PAGES
    ),
    "protect": Method(
        protect, model_protect, "mprotect, twice: two invalidations, every page absent", (*SMALL_PAGES, "thp")
    ),
    "reclaim": Method(
        reclaim,
        model_pageout,
        "memory.reclaim of the control group: every page absent, no count is exact",
        (*SMALL_PAGES, "thp"),
        setup=cgroup.enter,
    ),
    "split": Method(
        split, model_nothing, "mprotect of one page: a huge page is split, no count is exact", ("thp",)
    ),
    "pageout": Method(
        pageout,
        model_pageout,
        "MADV_PAGEOUT: one invalidation a page, every page absent",
        (*SMALL_PAGES, "thp"),
    ),
}


def applies(workload: Workload, side: str) -> bool:
    """Tell whether the method applies to the pages of `side` (local or remote) before each round."""
    return workload.loss.method != "none" and workload.loss.side in (side, "both")


def refusal(workload: Workload) -> Optional[str]:
    """Return why this workload makes no sense, or None."""
    method = METHODS[workload.loss.method]
    for side, region in (("local", workload.local), ("remote", workload.remote)):
        problem = _refuse_region(workload, side, region)
        if problem:
            return problem
        if not applies(workload, side):
            continue
        if region.mapping not in method.mappings:
            return f"page-loss method {workload.loss.method} does not work on a {region.mapping} mapping ({side})"
        if not region.odp and not method.fresh:
            return f"{side} is registered without on-demand paging: its pages are pinned and stay present"
    if workload.local.length != workload.remote.length:
        return "local and remote have different lengths"
    return None


def _refuse_region(workload: Workload, side: str, region: Region) -> Optional[str]:
    if region.length < 1 or not 0 <= region.offset < libc.PAGE_BYTES:
        return f"{side}: length {region.length}, offset {region.offset} within a page of {libc.PAGE_BYTES}"
    if region.prot == "read" and side in _WRITTEN.get(workload.operation, ("remote",)):
        return f"{side}: {workload.operation} writes there, and it is read-only memory"
    if region.iova == "implicit":
        return f"{side}: the faults of an implicit region are not modelled: only a soak uses one"
    if workload.operation in ("compare_swap", "fetch_add") and (region.offset % 8 or region.length < 8):
        return f"{side}: an atomic needs 8 bytes at a multiple of 8, not {region.length} at {region.offset}"
    return None
