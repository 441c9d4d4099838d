"""A forked child that shares memory copy-on-write, and afterwards says whether its copy stayed as it was."""

from __future__ import annotations

import os
from typing import List, Tuple

from harness.guest.errors import WorkFailed
from harness.guest.mm.memory import Memory


class Child:
    """Forked when made; waits until dismissed."""

    def __init__(self, memories: List[Memory]) -> None:
        go_read, self._go = os.pipe()
        self._said, say = os.pipe()
        self._pid = os.fork()
        if self._pid == 0:
            _live(memories, go_read, self._go, say)
        os.close(go_read)
        os.close(say)

    def dismiss(self) -> Tuple[int, str]:
        """Let the child look at its memory and exit; returns how many bytes are wrong, and the first."""
        os.close(self._go)
        said = b""
        while True:
            more = os.read(self._said, 4096)
            if not more:
                break
            said += more
        os.close(self._said)
        _, status = os.waitpid(self._pid, 0)
        if status or not said:
            raise WorkFailed(f"the forked child ended with status {status:#x}")
        count, _, first = said.decode().partition(" ")
        return int(count), first


def _live(memories: List[Memory], go_read: int, go_write: int, say: int) -> None:
    """The child's whole life; never returns."""
    status = 1
    try:
        os.close(go_write)
        os.read(go_read, 1)
        found = [memory.difference() for memory in memories]
        first = next((text for _, text in found if text), "")
        os.write(say, f"{sum(count for count, _ in found)} {first}".encode())
        status = 0
    finally:
        os._exit(status)
