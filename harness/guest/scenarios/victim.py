"""A child process whose memory the device faults on, until it is made to end.

It says where its memory is once the first transfer is over. Its frames are noted from time to time: one that is
still there when the process is gone is a page that somebody forgot.
"""

from __future__ import annotations

import os
import struct
import time
from typing import Callable, NoReturn

from harness.guest.errors import WorkFailed
from harness.guest.mm.pagemap import Frames
from harness.guest.scenarios.pair import Pair

_PLACE = struct.Struct("=QQ")
_PLACES = 2
_POLL_S = 0.001


class Victim:
    """Forked when made, and past its first transfer then.

    `live` is its whole life: it is given the file descriptor on which to say where its memory is (`tell`).
    """

    def __init__(self, live: Callable[[int], NoReturn], turn: int, timeout_s: float) -> None:
        self._turn = turn
        self._timeout_s = timeout_s
        self._frames = Frames()
        self.said, say = os.pipe()
        self.pid = os.fork()
        if self.pid == 0:
            os.close(self.said)
            live(say)
        os.close(say)
        told = os.read(self.said, _PLACES * _PLACE.size)
        self._places = list(_PLACE.iter_unpack(told))

    def note(self) -> None:
        """Remember the frames that its memory has now."""
        for start, pages in self._places:
            self._frames.note(start, pages, self.pid)

    def see_off(self) -> int:
        """Wait until it is gone, and return its exit status; WorkFailed if it stays or leaves pages behind."""
        os.close(self.said)
        deadline = time.monotonic() + self._timeout_s
        while True:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                break
            if time.monotonic() > deadline:
                raise WorkFailed(
                    f"round {self._turn}: the process is still there {self._timeout_s:g} s after its end"
                )
            time.sleep(_POLL_S)
        if not self._places:
            raise WorkFailed(f"round {self._turn}: the child ended before its first transfer")
        for leak in self._frames.left():
            raise WorkFailed(f"round {self._turn}: {leak.after} {leak.resource}")
        return status


def tell(say: int, pair: Pair) -> None:
    """Say where a pair's memory is."""
    os.write(say, b"".join(_PLACE.pack(memory.pages_start, memory.pages) for memory in pair.memories))
