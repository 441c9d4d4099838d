"""fork() in a loop while the device writes to the COW pages.

Whatever the order of fork and fault, the device's bytes must land in the parent: a fork maps the pages read-only in
both processes, and the device's next write must go to the parent's own copy.
"""

from __future__ import annotations

import os
import threading
from contextlib import ExitStack
from typing import List, Optional

from harness.guest.scenarios.pair import Pair
from harness.guest.scenarios.registry import scenario, timed_rounds
from harness.values.case import Case

_NAP_S = 0.0005
# A round is repeated, up to this often, until a process was forked during it.
MAX_TRIES = 20


class Forks:
    """A thread that forks children that exit at once, until closed."""

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
        """Stop forking."""
        self._stop.set()
        self._thread.join()


@scenario("fork_loop")
def fork_loop(case: Case) -> List[int]:
    """Write to absent pages and compare, with at least one fork during each write."""
    with ExitStack() as stack:
        pair = Pair(case, stack)
        children = Forks()
        stack.callback(children.close)

        def one_round(number: int) -> Optional[str]:
            before = children.count
            pair.write(number)
            return None if children.count > before else "no process was forked during the write"

        return timed_rounds(case, one_round, MAX_TRIES)
