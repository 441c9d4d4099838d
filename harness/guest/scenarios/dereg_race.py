"""Race ibv_dereg_mr() against invalidation of the same pages.

The driver holds the region's lock while the card destroys the key. The invalidation waits for that lock and gets it
next, because it runs on the same CPU at real-time priority. If the driver touches the region's pages after that, they
have been freed; and they are allocated again at once, so that the kernel's checks notice.
"""

from __future__ import annotations

import os
import threading
import time
from contextlib import ExitStack
from typing import List

from harness.guest.mm import libc
from harness.guest.scenarios.background import begin
from harness.guest.scenarios.pair import REMOTE, Pair
from harness.guest.scenarios.registry import scenario, timed_rounds
from harness.values.case import Case

# The card takes longer than that to destroy a key.
HEAD_START_S = 0.05
_PRIORITY = 10


@scenario("dereg_race")
def dereg_race(case: Case) -> List[int]:
    """Write once, so that the pages are mapped; then deregister, and invalidate the pages meanwhile."""

    def one_round(number: int) -> None:
        with ExitStack() as stack:
            _race(Pair(case, stack), number, case.timeout_s)

    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(before)})
    try:
        return timed_rounds(case, one_round)
    finally:
        os.sched_setaffinity(0, before)


def _race(pair: Pair, number: int, timeout_s: float) -> None:
    # The pages come from this CPU's node, so that this CPU's next allocations get the same ones.
    pair.write(number, absent=False)
    # A page in a CPU's batch for the LRU is not freed when it is unmapped.
    libc.drain_lru()
    ready = threading.Event()

    def invalidate() -> None:
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(_PRIORITY))
        ready.set()
        time.sleep(HEAD_START_S)
        pair.invalidate(REMOTE)

    wait = begin(f"round {number}: invalidation before other threads run", invalidate)
    if not ready.wait(timeout_s):
        wait(0.0)
    pair.deregister(pair.registrations.pop(REMOTE))
    wait(timeout_s)
    for memory in pair.memories:
        memory.fill(number)
