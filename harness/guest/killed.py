"""Processes killed while the device faults on their memory: they go away, and the device goes on."""

from __future__ import annotations

import os
import random
import signal
import time
from contextlib import ExitStack
from typing import List

from harness.guest.pair import REMOTE, Pair
from harness.guest.problems import WorkFailed
from harness.values.case import Case

# The victim lives that long after its first transfer, at most: some of its faults are over, one is under way.
LIFE_S = 0.02
_POLL_S = 0.001


def killed(case: Case) -> List[int]:
    """Each round a child loses its pages and has them written to, again and again, until it is killed.

    It must be gone in the time that a work request has; then this process must be able to do the same.
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
    said, say = os.pipe()
    child = os.fork()
    if child == 0:
        _live(case, say)
    os.close(say)
    alive = os.read(said, 1)
    os.close(said)
    time.sleep(life_s)
    os.kill(child, signal.SIGKILL)
    deadline = time.monotonic() + case.timeout_s
    while os.waitpid(child, os.WNOHANG) == (0, 0):
        if time.monotonic() > deadline:
            raise WorkFailed(f"round {turn}: the killed process is still there after {case.timeout_s:g} s")
        time.sleep(_POLL_S)
    if not alive:
        raise WorkFailed(f"round {turn}: the child ended before its first transfer")


def _live(case: Case, say: int) -> None:
    """The child's whole life; never returns."""
    try:
        with ExitStack() as stack:
            pair = Pair(case, stack)
            pair.write(1)
            os.write(say, b".")
            while True:
                pair.lose(REMOTE)
                pair.transfer()
    finally:
        os._exit(1)
