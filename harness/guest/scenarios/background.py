"""Work on a thread of its own, because it may wait in the kernel for what this thread does."""

from __future__ import annotations

import threading
from typing import Callable, List

from harness.guest.errors import WorkFailed


def begin(what: str, work: Callable[[], None]) -> Callable[[float], None]:
    """Begin the work. What is returned waits so many seconds for its end: WorkFailed, which says `what`, if it does not
    come or the kernel refuses it.
    """
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
            raise WorkFailed(f"{what}: not done after {timeout_s:g} s")
        for error in failed:
            raise WorkFailed(f"{what}: {error}")

    return wait
