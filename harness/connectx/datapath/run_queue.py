"""Run queue: the QPs whose send queues are to be looked at, now or at a later tick."""

from __future__ import annotations

from collections import deque

from harness.connectx.objects.qps import QueuePair


class RunQueue:
    """QPs that are ready, and those that have used up a time slice and wait for the next one."""

    def __init__(self) -> None:
        self._ready: deque[QueuePair] = deque()
        self._deferred: deque[QueuePair] = deque()

    def wake(self, qp: QueuePair) -> None:
        """Make a QP ready, unless its next time slice is due anyway."""
        if qp not in self._ready and qp not in self._deferred:
            self._ready.append(qp)

    def defer(self, qp: QueuePair) -> None:
        """Let a QP wait for its next time slice. It may have failed in the last one, which woke it."""
        if qp in self._ready:
            self._ready.remove(qp)
        self._deferred.append(qp)

    def release(self) -> None:
        """Make one deferred QP ready."""
        if self._deferred:
            self.wake(self._deferred.popleft())

    def take(self) -> QueuePair | None:
        """Return the next ready QP; None without any."""
        return self._ready.popleft() if self._ready else None

    def remove(self, qp: QueuePair) -> None:
        """Forget a QP."""
        for queue in (self._ready, self._deferred):
            if qp in queue:
                queue.remove(qp)

    def clear(self) -> None:
        """Forget all of them."""
        self._ready.clear()
        self._deferred.clear()

    @property
    def waiting(self) -> bool:
        """True while a QP is ready or deferred."""
        return bool(self._deferred or self._ready)
