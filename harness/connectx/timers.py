"""Timers: a heap of deadlines on the card's clock."""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Callable
from typing import Any

Action = Callable[[], None]


class Timers:
    """Deadlines, one per owner: a new one replaces the old."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._heap: list[tuple[float, int, Any]] = []
        self._actions: dict[Any, tuple[int, Action]] = {}
        self._numbers = itertools.count()

    def after(self, delay_s: float, owner: Any, action: Action) -> None:
        """Run `action` in `delay_s` seconds unless `owner` is cancelled or set again."""
        number = next(self._numbers)
        self._actions[owner] = number, action
        heapq.heappush(self._heap, (self._clock() + delay_s, number, owner))

    def cancel(self, owner: Any) -> None:
        """Cancel the deadline of `owner`."""
        self._actions.pop(owner, None)

    def clear(self) -> None:
        """Cancel all deadlines."""
        self._heap.clear()
        self._actions.clear()

    def run(self) -> None:
        """Run what is due now."""
        now = self._clock()
        while self._heap and self._heap[0][0] <= now:
            _, number, owner = heapq.heappop(self._heap)
            known = self._actions.get(owner)
            if known is not None and known[0] == number:
                del self._actions[owner]
                known[1]()

    def next_s(self) -> float | None:
        """Return seconds until the next deadline, None without any."""
        while self._heap:
            due, number, owner = self._heap[0]
            known = self._actions.get(owner)
            if known is not None and known[0] == number:
                return max(due - self._clock(), 0.0)
            heapq.heappop(self._heap)
        return None
