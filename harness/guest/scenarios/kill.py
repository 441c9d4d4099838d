"""Processes killed while the device faults on their memory: they go away, and the device goes on."""

from __future__ import annotations

import os
import random
import signal
import time
from contextlib import ExitStack
from typing import List, NoReturn

from harness.guest.scenarios.pair import (
    REMOTE,
    Pair,
)
from harness.guest.scenarios.victim import (
    Victim,
    tell,
)
from harness.values.case import Case

# The victim lives that long after its first transfer, at most: some of its faults are over, one is under way.
LIFE_S = 0.02


def killed(case: Case) -> List[int]:
    """Each round a child loses its pages and has them written to, again and again, until it is killed.

    It must be gone in the time that a work request has, with all of its pages; then this process must be able to
    do the same.
    """
    draw = random.Random(case.seed)
    times: List[int] = []
    for turn in range(1, case.workload.rounds + 1):
        began = time.monotonic_ns()
        _kill_one(case, draw.random() * LIFE_S, turn)
        with ExitStack() as stack:
            Pair(case, stack).write(turn)
        times.append(time.monotonic_ns() - began)
    return times


def _kill_one(case: Case, life_s: float, turn: int) -> None:
    victim = Victim(lambda say: _live(case, say), turn, case.timeout_s)
    time.sleep(life_s)
    victim.note()
    os.kill(victim.pid, signal.SIGKILL)
    victim.see_off()


def _live(case: Case, say: int) -> NoReturn:
    try:
        with ExitStack() as stack:
            pair = Pair(case, stack)
            pair.write(1)
            tell(say, pair)
            if case.workload.loss.method == "late":
                pair.memories[REMOTE].make_late()
            while True:
                pair.lose(REMOTE)
                pair.transfer()
    finally:
        os._exit(1)
