"""Work on a thread of its own, because it may block in the kernel until this thread has gone on."""

from __future__ import annotations

import threading
from typing import Callable, List

from harness.guest.errors import WorkFailed


def begin(name: str, work: Callable[[], None]) -> Callable[[float], None]:
    """Start `work` in a thread; return `wait(timeout_s)`, which raises WorkFailed on timeout or OSError."""
    failed: List[BaseException] = []

    def run() -> None:
        try:
            work()
        except OSError as error:
            failed.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()

    def wait(timeout_s: float) -> None:
        thread.join(timeout_s)
        if thread.is_alive():
            raise WorkFailed(f"{name}: not done after {timeout_s:g} s")
        for error in failed:
            raise WorkFailed(f"{name}: {error}")

    return wait
