"""Event loop: one thread, one selector, callbacks by descriptor."""

from __future__ import annotations

import selectors
from collections.abc import Callable
from typing import Protocol

READABLE = selectors.EVENT_READ
WRITABLE = selectors.EVENT_WRITE


class HasFileno(Protocol):
    """A socket, a pipe, anything with a descriptor."""

    def fileno(self) -> int:
        """Return the descriptor."""


Callback = Callable[[int], None]
Timer = Callable[[], float | None]


class Loop:
    """Event loop; `timer` runs before every wait and returns in how many seconds to wake."""

    def __init__(self) -> None:
        self._selector = selectors.DefaultSelector()
        self._running = False
        self.timer: Timer = lambda: None
        self.reason = ""

    def add(self, source: HasFileno | int, callback: Callback, events: int = READABLE) -> None:
        """Call back with the events that are ready on `source`."""
        self._selector.register(source, events, callback)

    def change(self, source: HasFileno | int, callback: Callback, events: int) -> None:
        """Wait for other events on a source that was added."""
        self._selector.modify(source, events, callback)

    def remove(self, source: HasFileno | int) -> None:
        """Forget a source; before it is closed."""
        try:
            self._selector.unregister(source)
        except (KeyError, ValueError):
            pass

    def once(self, timeout_s: float | None = 0.0) -> bool:
        """Run the timer, wait, call back; return whether anything was ready."""
        due_s = self.timer()
        if due_s is not None and (timeout_s is None or due_s < timeout_s):
            timeout_s = max(due_s, 0.0)
        ready = self._selector.select(timeout_s)
        for key, events in ready:
            key.data(events)
        return bool(ready)

    def run(self) -> str:
        """Run until `stop`; return its reason."""
        self._running = True
        while self._running:
            self.once(None)
        return self.reason

    def stop(self, reason: str) -> None:
        """End `run` after this round; the first reason stays."""
        self._running = False
        self.reason = self.reason or reason

    def close(self) -> None:
        """Free the selector."""
        self._selector.close()
