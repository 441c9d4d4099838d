"""Pages lost while their registration is being given back.

The driver holds the region's lock while the card lets go of it. Whoever loses the pages meanwhile waits for that lock,
and here gets it next: it runs on the same CPU, before any other. Whatever the driver still does with the region's
pages then, it does to pages that are free. They come back into use at once, so that the kernel looks at them.
"""

from __future__ import annotations

import os
import threading
import time
from contextlib import ExitStack
from typing import List

from harness.guest.mm import libc
from harness.guest.scenarios.background import begin
from harness.guest.scenarios.pair import (
    REMOTE,
    Pair,
)
from harness.values.case import Case

# The card takes longer than that to let go of a region.
HEAD_START_S = 0.05
_PRIORITY = 10


def dereg_amid(case: Case) -> List[int]:
    """A round: one write, so that the card has the pages; then the registration goes, and the pages meanwhile."""
    times: List[int] = []
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(before)})
    try:
        for turn in range(1, case.workload.rounds + 1):
            began = time.monotonic_ns()
            with ExitStack() as stack:
                _round(Pair(case, stack), turn, case.timeout_s)
            times.append(time.monotonic_ns() - began)
    finally:
        os.sched_setaffinity(0, before)
    return times


def _round(pair: Pair, turn: int, timeout_s: float) -> None:
    # Its pages are from this CPU's node, so that what this CPU takes next are the same.
    pair.write(turn, lost=False)
    # A page that waits in a batch for its list is not freed when its owner loses it.
    libc.drain_lru()
    ready = threading.Event()

    def lose() -> None:
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(_PRIORITY))
        ready.set()
        time.sleep(HEAD_START_S)
        pair.lose(REMOTE)

    lost = begin(f"round {turn}: pages are lost before others go on", lose)
    if not ready.wait(timeout_s):
        lost(0.0)
    pair.deregister(pair.registrations.pop(REMOTE))
    lost(timeout_s)
    for memory in pair.memories:
        memory.fill(turn)
