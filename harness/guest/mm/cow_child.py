"""A forked child that shares memory copy-on-write, and compares its copy when dismissed."""

from __future__ import annotations

import os
from typing import List, NoReturn, Tuple

from harness.guest.errors import WorkFailed
from harness.guest.mm.memory import Memory


class CowChild:
    """A forked child that waits until dismissed."""

    def __init__(self, memories: List[Memory]) -> None:
        go_read, self._go = os.pipe()
        self._result, write_end = os.pipe()
        self._pid = os.fork()
        if self._pid == 0:
            _child_main(memories, go_read, self._go, write_end)
        os.close(go_read)
        os.close(write_end)

    def dismiss(self) -> Tuple[int, str]:
        """Let the child compare its memory and exit; return the number of wrong bytes, and the first one."""
        os.close(self._go)
        result = b""
        while True:
            more = os.read(self._result, 4096)
            if not more:
                break
            result += more
        os.close(self._result)
        _, status = os.waitpid(self._pid, 0)
        if status or not result:
            raise WorkFailed(f"the forked child ended with status {status:#x}")
        count, _, first = result.decode().partition(" ")
        return int(count), first


def _child_main(memories: List[Memory], go_read: int, go_write: int, result: int) -> NoReturn:
    """Run the child."""
    status = 1
    try:
        os.close(go_write)
        os.read(go_read, 1)
        differences = [memory.difference() for memory in memories]
        first = next((text for _, text in differences if text), "")
        os.write(result, f"{sum(count for count, _ in differences)} {first}".encode())
        status = 0
    finally:
        os._exit(status)
