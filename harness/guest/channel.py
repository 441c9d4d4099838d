"""The request channel: a file in which requests appear, and their format.

A request is a text of two lines: its number in 8 decimal digits, then the Request as JSON; spaces may follow. The JSON
has no newline in it, so the second newline ends the request. The file is only ever replaced as a whole (fw_cfg of a
VM), so a change of the first digits means a new request, and polling costs one short read.
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
_LINES = 2


class BadRequest(ValueError):
    """Raised for a text that is no request; `number` is its number, -1 if not even that can be read."""

    def __init__(self, number: int, problem: str) -> None:
        super().__init__(problem)
        self.number = number


def number_of(head: bytes) -> int:
    """Return the number at the start of a request."""
    digits = head[:NUMBER_DIGITS]
    if len(digits) < NUMBER_DIGITS or not digits.isdigit():
        raise BadRequest(-1, f"a request begins with {NUMBER_DIGITS} digits, not {bytes(head[:16])!r}")
    return int(digits)


def parse(text: bytes) -> Request:
    """Parse a request; BadRequest has the number for the reply."""
    head, newline, body = text.partition(b"\n")
    number = number_of(head)
    if not newline or len(head) != NUMBER_DIGITS:
        raise BadRequest(number, "the number of a request is a line of its own")
    try:
        request = codec.loads(Request, body.strip(b" \n\0").decode())
    except ValueError as error:
        raise BadRequest(number, str(error)) from error
    if request.number != number:
        raise BadRequest(number, f"the first line says {number}, the request {request.number}")
    return request


class RequestFile:
    """The file in which requests appear; no more of it is read than the request is long."""

    def __init__(self, path: str, pause: Callable[[float], None] = time.sleep) -> None:
        self._fd = os.open(path, os.O_RDONLY)
        self._pause = pause

    def next(self, done: int) -> Tuple[int, bytes]:
        """Wait for a request whose number is not `done`; return the number and the text."""
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
            # fw_cfg is slow to read at large offsets, and the padding is long. Only the newline shows where it begins:
            # a space may be the script's own.
            if not chunk or text.count(b"\n") >= _LINES:
                return text

    def close(self) -> None:
        """Close the file."""
        os.close(self._fd)
