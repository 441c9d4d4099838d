"""Processes forked again and again while the device writes to memory that they share until somebody writes it.

What the device writes must be the parent's, however a fork and a fault meet: the pages of a fork are read-only for
both, and the device's next write must come to a page of the parent's own.
"""

from __future__ import annotations

import os
import threading
import time
from contextlib import ExitStack
from typing import List

from harness.guest.errors import WorkFailed
from harness.guest.scenarios.pair import Pair
from harness.values.case import Case

_NAP_S = 0.0005
# A round is made again, up to so many times, until a process was forked in it.
TRIES = 20


class Forks:
    """A thread that forks children that end at once, until it is closed."""

    def __init__(self) -> None:
        self.count = 0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="forks")
        self._thread.start()

    def _run(self) -> None:
        while not self._stop.wait(_NAP_S):
            child = os.fork()
            if child == 0:
                os._exit(0)
            self.count += 1
            os.waitpid(child, 0)

    def close(self) -> None:
        """Fork no more."""
        self._stop.set()
        self._thread.join()


def forks(case: Case) -> List[int]:
    """Rounds of a checked write to lost pages, in each of which a process is forked, or several."""
    times: List[int] = []
    with ExitStack() as stack:
        pair = Pair(case, stack)
        children = Forks()
        stack.callback(children.close)
        for turn in range(1, case.workload.rounds + 1):
            for _ in range(TRIES):
                began, before = time.monotonic_ns(), children.count
                pair.write(turn)
                if children.count > before:
                    break
            else:
                raise WorkFailed(f"round {turn}: no process was forked in any of {TRIES} writes")
            times.append(time.monotonic_ns() - began)
    return times
