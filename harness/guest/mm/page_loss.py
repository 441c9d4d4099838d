"""The ways to lose a page: what is done to the memory, and beside it what that means for the counts.

Each way is a `Loss` with two functions of the same shape, one on real memory and one on its model, and the
law in words. A new way to lose pages is one more entry; whether it makes sense is `refusal`.
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
    """One way: `act` on memory, `law` on the model, `text` for people, `mappings` on which it loses pages.

    A `fresh` one replaces mapping and registration, and acts between the two. `ready` is what comes before all
    memory is made; the stack takes it back.
    """

    act: Callable[[Memory], None]
    law: Callable[[PageModel], None]
    text: str
    mappings: Tuple[str, ...] = ("anonymous", "shared", "file", "thp", "hugetlb")
    fresh: bool = False
    ready: Optional[Callable[[ExitStack], None]] = None


def nothing(memory: Memory) -> None:
    """Lose nothing."""


def nothing_law(model: PageModel) -> None:
    """No page is lost: pages the CPU wrote before registration never fault."""


def peek(memory: Memory) -> None:
    """Read every page: what a private mapping then has is the zero page, or its file's, read-only."""
    memory.peek()


def peek_law(model: PageModel) -> None:
    """Registered so, the device may read every page; its first write faults, and copies each."""
    model.read_all()


def dontneed(memory: Memory, pages: Optional[range] = None) -> None:
    """madvise(MADV_DONTNEED) of all pages, or some: private memory falls back to zeros or its file, shared keeps its
    bytes.
    """
    memory.advise(libc.MADV_DONTNEED, pages)
    if memory.region.mapping != "shared":
        memory.expect_fresh(pages)


def dontneed_law(model: PageModel) -> None:
    """One invalidation; every page is absent."""
    model.drop()


def late(memory: Memory) -> None:
    """MADV_DONTNEED of memory whose pages then come late, by userfaultfd(2)."""
    memory.make_late()
    dontneed(memory)


def remap(memory: Memory) -> None:
    """munmap, then mmap at the same address: a fresh mapping under an old registration."""
    memory.remap()


def remap_law(model: PageModel) -> None:
    """One invalidation, by the munmap; every page is absent."""
    model.drop()


def pageout(memory: Memory) -> None:
    """madvise(MADV_PAGEOUT): the pages go to swap and keep their bytes."""
    libc.drain_lru()
    memory.advise(libc.MADV_PAGEOUT)


def pageout_law(model: PageModel) -> None:
    """One invalidation a page; every page is absent."""
    model.swap_out()


def migrate(memory: Memory) -> None:
    """madvise(MADV_SOFT_OFFLINE): the bytes of each page move to another frame, and its own is not used any more."""
    libc.drain_lru()
    memory.advise(libc.MADV_SOFT_OFFLINE)


def migrate_law(model: PageModel) -> None:
    """One invalidation a page; every page is absent for the device, and as it was for the CPU."""
    model.migrate()


def move(memory: Memory) -> None:
    """move_pages(2): the bytes of each page move to a frame of the other memory node."""
    numa.move(memory.addresses())


def protect(memory: Memory) -> None:
    """mprotect: writing is forbidden, then allowed again."""
    memory.protect()


def protect_law(model: PageModel) -> None:
    """Two invalidations; every page is absent for the device, and as it was for the CPU."""
    model.protect()


def split(memory: Memory) -> None:
    """mprotect of one page in the middle, which splits the huge page that it is in."""
    middle = memory.pages // 2
    memory.protect(range(middle, middle + 1))


def reclaim(memory: Memory) -> None:
    """memory.reclaim of all that this process's control group has: the pages go to swap and keep their bytes."""
    libc.drain_lru()
    cgroup.reclaim(_EVERYTHING)


def punch(memory: Memory) -> None:
    """MADV_DONTNEED run by run: a message finds its first absent page in its middle."""
    for pages in holes(memory.pages):
        dontneed(memory, pages)


def punch_law(model: PageModel) -> None:
    """One invalidation a run, the last one over pages of which some are absent already."""
    for pages in holes(len(model.cpu)):
        model.lose(pages)


def fork_law(model: PageModel) -> None:
    """One invalidation of the whole range; every page is absent for the device and read-only for the CPU."""
    model.fork()


# The sides that an operation writes to, where it is not just the remote one.
_WRITTEN: Dict[str, Tuple[str, ...]] = {
    "read": ("local",),
    "flush": (),
    "compare_swap": ("local", "remote"),
    "fetch_add": ("local", "remote"),
}
# More than any group here has.
_EVERYTHING = 1 << 30
PRIVATE = ("anonymous", "file", "thp")
SMALL = ("anonymous", "shared", "file")

LOSSES: Dict[str, Method] = {
    "none": Method(nothing, nothing_law, "no page is lost, so none faults"),
    "untouched": Method(
        nothing, nothing_law, "a fresh mapping, registered untouched, has no page", fresh=True
    ),
    "peeked": Method(peek, peek_law, "a fresh mapping, only read before it is registered", fresh=True),
    "dontneed": Method(dontneed, dontneed_law, "MADV_DONTNEED of all at once, every page absent"),
    "late": Method(
        late, dontneed_law, "MADV_DONTNEED, and each page comes 100 ms after it is missed", ("anonymous",)
    ),
    "remap": Method(remap, remap_law, "munmap of all at once and mmap, every page absent"),
    # The fork itself happens once for both sides: done where the child is kept (cases.py).
    "fork": Method(nothing, fork_law, "fork: one invalidation, every page absent, writes copy", PRIVATE),
    "holes": Method(
        punch, punch_law, "MADV_DONTNEED of every eighth page, then of the second half", (*SMALL, "thp")
    ),
    "migrate": Method(
        migrate, migrate_law, "MADV_SOFT_OFFLINE: one invalidation a page, every page absent", (*SMALL, "thp")
    ),
    "move": Method(move, migrate_law, "move_pages: one invalidation a page, every page absent", SMALL),
    "protect": Method(
        protect, protect_law, "mprotect, twice: two invalidations, every page absent", (*SMALL, "thp")
    ),
    "reclaim": Method(
        reclaim,
        pageout_law,
        "memory.reclaim of the control group: every page absent, no count is a law",
        (*SMALL, "thp"),
        ready=cgroup.enter,
    ),
    "split": Method(
        split, nothing_law, "mprotect of one page: a huge page is split, no count is a law", ("thp",)
    ),
    "pageout": Method(
        pageout, pageout_law, "MADV_PAGEOUT: one invalidation a page, every page absent", (*SMALL, "thp")
    ),
}


def loses(workload: Workload, side: str) -> bool:
    """Whether the pages of `side` (local or remote) are lost before each round."""
    return workload.loss.method != "none" and workload.loss.side in (side, "both")


def refusal(workload: Workload) -> Optional[str]:
    """Why this workload makes no sense, or None."""
    loss = LOSSES[workload.loss.method]
    for side, region in (("local", workload.local), ("remote", workload.remote)):
        problem = _refuse_region(workload, side, region)
        if problem:
            return problem
        if not loses(workload, side):
            continue
        if region.mapping not in loss.mappings:
            return f"loss {workload.loss.method} does not lose pages of a {region.mapping} mapping ({side})"
        if not region.odp and not loss.fresh:
            return f"{side} is registered without on-demand paging: its pages are pinned and cannot be lost"
    if workload.local.length != workload.remote.length:
        return "local and remote have different lengths"
    return None


def _refuse_region(workload: Workload, side: str, region: Region) -> Optional[str]:
    if region.length < 1 or not 0 <= region.offset < libc.PAGE_BYTES:
        return f"{side}: length {region.length}, offset {region.offset} within a page of {libc.PAGE_BYTES}"
    if region.prot == "read" and side in _WRITTEN.get(workload.operation, ("remote",)):
        return f"{side}: {workload.operation} writes there, and it may only be read"
    if region.iova == "implicit":
        return f"{side}: there is no law of the faults of an implicit region: only a soak uses one"
    if workload.operation in ("compare_swap", "fetch_add") and (region.offset % 8 or region.length < 8):
        return f"{side}: an atomic needs 8 bytes at a multiple of 8, not {region.length} at {region.offset}"
    return None
