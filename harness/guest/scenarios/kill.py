"""Kill a process while the device faults on its memory: it must exit, and the device must go on."""

from __future__ import annotations

import os
import random
import signal
import time
from contextlib import ExitStack
from typing import List, NoReturn

from harness.guest.scenarios.child import Child, report_memory
from harness.guest.scenarios.pair import REMOTE, Pair
from harness.guest.scenarios.registry import scenario, timed_rounds
from harness.values.case import Case

# The child lives up to that long after its first transfer: some of its faults are resolved, one is in progress.
MAX_LIFE_S = 0.02


@scenario("kill")
def kill(case: Case) -> List[int]:
    """Kill a child that transfers to absent pages in a loop; then transfer from this process.

    The child must be gone within a work request's timeout, with all of its pages.
    """
    draw = random.Random(case.seed)

    def one_round(number: int) -> None:
        _kill_one(case, draw.random() * MAX_LIFE_S, number)
        with ExitStack() as stack:
            Pair(case, stack).write(number)

    return timed_rounds(case, one_round)


def _kill_one(case: Case, life_s: float, number: int) -> None:
    child = Child(lambda fd: _child_main(case, fd), number, case.timeout_s)
    time.sleep(life_s)
    child.record_frames()
    os.kill(child.pid, signal.SIGKILL)
    child.wait()


def _child_main(case: Case, fd: int) -> NoReturn:
    try:
        with ExitStack() as stack:
            pair = Pair(case, stack)
            pair.write(1)
            report_memory(fd, pair)
            if case.workload.loss.method == "userfaultfd":
                pair.memories[REMOTE].delay_faults()
            while True:
                pair.invalidate(REMOTE)
                pair.transfer()
    finally:
        os._exit(1)
