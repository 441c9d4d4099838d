"""Where orders come from and how they are read.

An order is a text of two lines: its number in 8 decimal digits, then the Order as JSON; spaces may follow. It
appears in a file that is only ever replaced as a whole (fw_cfg of a VM), so a change of the first digits says
that there is a new one, and looking costs one short read.
"""

from __future__ import annotations

import os
import time
from typing import Callable, Tuple

from harness.values import codec
from harness.values.case import Request

NUMBER_DIGITS = 8
POLL_S = 0.01
_CHUNK_BYTES = 4096


class BadOrder(ValueError):
    """A text that is no order; `number` is its number, -1 if not even that can be read."""

    def __init__(self, number: int, problem: str) -> None:
        super().__init__(problem)
        self.number = number


def number_of(head: bytes) -> int:
    """The number at the start of an order's text."""
    digits = head[:NUMBER_DIGITS]
    if len(digits) < NUMBER_DIGITS or not digits.isdigit():
        raise BadOrder(-1, f"an order begins with {NUMBER_DIGITS} digits, not {bytes(head[:16])!r}")
    return int(digits)


def parse(text: bytes) -> Request:
    """Read an order's text; BadOrder carries the number that the reply has to have."""
    head, newline, body = text.partition(b"\n")
    number = number_of(head)
    if not newline or len(head) != NUMBER_DIGITS:
        raise BadOrder(number, "the number of an order is a line of its own")
    try:
        request = codec.loads(Request, body.strip(b" \n\0").decode())
    except ValueError as error:
        raise BadOrder(number, str(error)) from error
    if request.number != number:
        raise BadOrder(number, f"the first line says {number}, the order {request.number}")
    return request


class OrderFile:
    """The file that orders appear in. Only as much of it is read as the order is long."""

    def __init__(self, path: str, pause: Callable[[float], None] = time.sleep) -> None:
        self._fd = os.open(path, os.O_RDONLY)
        self._pause = pause

    def next(self, done: int) -> Tuple[int, bytes]:
        """Wait for an order whose number is not `done`; returns the number and the text."""
        while True:
            head = os.pread(self._fd, NUMBER_DIGITS + 1, 0)
            if head[:NUMBER_DIGITS].isdigit() and len(head) > NUMBER_DIGITS and number_of(head) != done:
                return number_of(head), self._text()
            self._pause(POLL_S)

    def _text(self) -> bytes:
        text = b""
        while True:
            chunk = os.pread(self._fd, _CHUNK_BYTES, len(text))
            text += chunk
            # fw_cfg is slow to read far into a file, and the padding is long.
            if not chunk or chunk[-1:] in (b" ", b"\0"):
                return text

    def close(self) -> None:
        """Close the file."""
        os.close(self._fd)
