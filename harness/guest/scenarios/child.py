"""A forked process on whose memory the device faults until it exits or is killed.

It reports the addresses of its memory after its first transfer. Its page frames are recorded from time to time: one
that is still in use after the process is gone was leaked by the kernel.
"""

from __future__ import annotations

import os
import struct
import time
from typing import Callable, NoReturn

from harness.guest.errors import WorkFailed
from harness.guest.mm.pagemap import Frames
from harness.guest.scenarios.pair import Pair

# Address and number of pages, of each of a pair's two memories.
_MEMORY = struct.Struct("=QQ")
_MEMORIES = 2
_POLL_S = 0.001


class Child:
    """A child process, past its first transfer once constructed.

    `main` is all that it runs: it gets the file descriptor for `report_memory`, and never returns.
    """

    def __init__(self, main: Callable[[int], NoReturn], number: int, timeout_s: float) -> None:
        self._number = number
        self._timeout_s = timeout_s
        self._frames = Frames()
        self.output, write_end = os.pipe()
        self.pid = os.fork()
        if self.pid == 0:
            os.close(self.output)
            main(write_end)
        os.close(write_end)
        report = os.read(self.output, _MEMORIES * _MEMORY.size)
        self._memories = list(_MEMORY.iter_unpack(report))

    def record_frames(self) -> None:
        """Remember the page frames that its memory has now."""
        for start, pages in self._memories:
            self._frames.record(start, pages, self.pid)

    def wait(self) -> int:
        """Wait for its exit; return the wait status. WorkFailed if it does not exit, or leaks page frames."""
        os.close(self.output)
        deadline = time.monotonic() + self._timeout_s
        while True:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                break
            if time.monotonic() > deadline:
                raise WorkFailed(
                    f"round {self._number}: the process is still there {self._timeout_s:g} s after its end"
                )
            time.sleep(_POLL_S)
        if not self._memories:
            raise WorkFailed(f"round {self._number}: the child exited before its first transfer")
        for leak in self._frames.leaked():
            raise WorkFailed(f"round {self._number}: {leak.after} {leak.resource}")
        return status


def report_memory(fd: int, pair: Pair) -> None:
    """Write the addresses of a pair's memory to the parent."""
    os.write(fd, b"".join(_MEMORY.pack(memory.pages_start, memory.pages) for memory in pair.memories))
