"""Invalidate a mapped page while the device is blocked on the next one (userfaultfd).

The child MR of an implicit region loses its last page that way and is destroyed while a fault in it is in progress;
once that is resolved the child has a page again, which is invalidated, too. Then the parent must still deregister.
Ref: Linux 7.3 drivers/infiniband/hw/mlx5/odp.c, destroy_unused_implicit_child_mr
"""

from __future__ import annotations

import ctypes
import time
from contextlib import ExitStack
from typing import List, Optional

from harness.guest.errors import WorkFailed
from harness.guest.mm import pagemap
from harness.guest.mm.libc import PAGE_BYTES
from harness.guest.mm.userfaultfd import DELAY_S
from harness.guest.rdma import workloads
from harness.guest.scenarios.pair import LOCAL, REMOTE, Pair, compare
from harness.guest.scenarios.registry import scenario, timed_rounds
from harness.values.case import Case

MAPPED, BLOCKING = range(2)
MAX_TRIES = 8


@scenario("invalidate_while_faulting")
def invalidate_while_faulting(case: Case) -> List[int]:
    """Invalidate page MAPPED while the device waits for page BLOCKING; then register the region again."""
    with ExitStack() as stack:
        pair = Pair(case, stack)

        def one_round(number: int) -> Optional[str]:
            if not _race(pair, number):
                return "the delayed page was already present"
            pair.register_again(REMOTE, odp=True)
            return None

        return timed_rounds(case, one_round, MAX_TRIES)


def _race(pair: Pair, number: int) -> bool:
    """Return whether the device was blocked at the invalidation; WorkFailed if data is wrong."""
    remote = pair.memories[REMOTE]
    for memory in pair.memories:
        memory.fill(number)
    pair.invalidate(REMOTE)
    _post(pair, MAPPED)
    pair.connection.wait(1)
    remote.delay_faults()
    try:
        _post(pair, BLOCKING)
        time.sleep(DELAY_S / 2)
        pair.invalidate(REMOTE, range(MAPPED, MAPPED + 1))
        blocked = not pagemap.present(remote.pages_start + BLOCKING * PAGE_BYTES, 1)
        pair.connection.wait(1)
        wrong = _wrong(pair, BLOCKING)
        # At once, while the child MR that is to be destroyed still exists.
        pair.invalidate(REMOTE, range(BLOCKING, BLOCKING + 1))
    finally:
        remote.stop_delaying()
    if wrong:
        raise WorkFailed(f"data: round {number}: {wrong} bytes of the delayed page are wrong")
    compare(pair.memories, f"round {number}, ")
    return blocked


def _post(pair: Pair, page: int) -> None:
    """Post an RDMA write of one page, and expect its bytes there."""
    at = page * PAGE_BYTES
    local, remote = (registration.at(at) for registration in pair.registrations)
    workloads.moved(pair.memories[LOCAL], at, pair.memories[REMOTE], at, PAGE_BYTES)
    pair.connection.requester.post_send(workloads.one_sided_work(local, remote, PAGE_BYTES, "RDMA_WRITE"))


def _wrong(pair: Pair, page: int) -> int:
    """Count the wrong bytes of a page that is present."""
    remote = pair.memories[REMOTE]
    at = remote.first + page * PAGE_BYTES
    content = ctypes.string_at(remote.pages_start + page * PAGE_BYTES, PAGE_BYTES)
    return sum(byte != right for byte, right in zip(content, remote.expected[at : at + PAGE_BYTES]))
