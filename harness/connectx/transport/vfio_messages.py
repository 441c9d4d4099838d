"""vfio-user messages on a UNIX stream socket: header, payload, descriptors. Both ends use this.

Ref: QEMU 11.1 docs/interop/vfio-user.rst and hw/vfio-user/protocol.h. Everything is little endian.
"""

from __future__ import annotations

import array
import os
import socket
import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from enum import IntEnum

HEADER = struct.Struct("<HHIII")  # id, command, size with header, flags, errno
TYPE_MASK = 0xF
REQUEST = 0
REPLY = 1
NO_REPLY = 0x10
ERROR = 0x20

MAX_TRANSFER = 1 << 20
"""Limit of the data of one message, bytes; both sides' default."""
MAX_MESSAGE = HEADER.size + 64 + MAX_TRANSFER
"""Limit of the size in a header; the stream of one that states more is lost."""
MAX_DESCRIPTORS = 16
_ROOM_FOR_DESCRIPTORS = socket.CMSG_SPACE(253 * 4)  # SCM_MAX_FD, so that none is lost unseen
_CTRUNC, _CLOEXEC = int(socket.MSG_CTRUNC), int(socket.MSG_CMSG_CLOEXEC)  # plain numbers are faster
_CHUNK = 1 << 16
_MAX_UNSENT = 16 << 20


class Command(IntEnum):
    """Command of a message."""

    VERSION = 1
    DMA_MAP = 2
    DMA_UNMAP = 3
    GET_INFO = 4
    GET_REGION_INFO = 5
    GET_REGION_IO_FDS = 6
    GET_IRQ_INFO = 7
    SET_IRQS = 8
    REGION_READ = 9
    REGION_WRITE = 10
    DMA_READ = 11
    DMA_WRITE = 12
    RESET = 13
    DIRTY_PAGES = 14
    REGION_WRITE_MULTI = 15


VERSION = struct.Struct("<HH")  # major, minor; then JSON and a NUL
DMA_MAP = struct.Struct("<IIQQQ")  # argsz, flags (1 read, 2 write), offset in the file, address, size
DMA_UNMAP = struct.Struct("<IIQQ")  # argsz, flags (2: all), address, size
INFO = struct.Struct("<IIII")  # argsz, flags (1 reset, 2 PCI), regions, interrupt indexes
REGION_INFO = struct.Struct("<IIIIQQ")  # argsz, flags (1 read, 2 write), index, capabilities, size, offset
IRQ_INFO = struct.Struct("<IIII")  # argsz, flags, index, count
SET_IRQS = struct.Struct("<IIIII")  # argsz, flags, index, start, count
REGION = struct.Struct("<QII")  # offset, region, count; then data
DMA = struct.Struct("<QQ")  # address, count; then data
WRITE_COUNT = struct.Struct("<Q")
WRITE_ONE = struct.Struct("<QII8s")  # offset, region, count, data


class StreamLost(Exception):
    """The byte stream cannot be parsed any more: the connection must be closed."""


@dataclass(slots=True)
class Message:
    """One received message. The handler removes the `descriptors` it keeps, `close` closes the rest."""

    number: int
    command: int
    flags: int
    error: int
    payload: bytes
    descriptors: list[int] = field(default_factory=list)

    def close(self) -> None:
        """Close the descriptors that were not taken."""
        close_all(self.descriptors)


def close_all(descriptors: list[int]) -> None:
    """Close and forget all descriptors."""
    for descriptor in descriptors:
        try:
            os.close(descriptor)
        except OSError:
            pass
    descriptors.clear()


class Stream:
    """Messages over a non-blocking socket."""

    def __init__(self, connection: socket.socket) -> None:
        connection.setblocking(False)
        self.socket = connection
        self.ended = False
        self._buffer = bytearray()
        self._chunk = bytearray(_CHUNK)
        self._waiting: list[tuple[int, list[int]]] = []  # offset behind the bytes they came with, descriptors
        self._unsent = bytearray()

    def fileno(self) -> int:
        """Return the socket's descriptor."""
        return self.socket.fileno()

    @property
    def unsent(self) -> bool:
        """True while bytes wait for the other end to read."""
        return bool(self._unsent)

    def receive(self) -> list[Message]:
        """Return the messages that have arrived completely; set `ended` when the other end is gone.

        Descriptors go to the message that holds the chunk's last byte: the kernel ends a read after the
        bytes that descriptors came with, and both ends send a message with one call. A plain
        queue would give them to a map without one that arrived in the same read. StreamLost on nonsense.
        """
        try:
            count, ancillary, flags, _ = self.socket.recvmsg_into(
                [self._chunk], _ROOM_FOR_DESCRIPTORS, _CLOEXEC
            )
        except BlockingIOError:
            return []
        except OSError:
            self.ended = True
            return []
        if ancillary:
            self._waiting.append((len(self._buffer) + count, _descriptors(ancillary)))
            waiting = sum(len(some) for _, some in self._waiting)
            if flags & _CTRUNC or waiting > MAX_DESCRIPTORS:
                raise StreamLost("more descriptors than a message may carry")
        if count == 0:
            self.ended = True
            return []
        self._buffer += memoryview(self._chunk)[:count]
        return self._parse()

    def _parse(self) -> list[Message]:
        messages: list[Message] = []
        buffer = self._buffer
        at = 0
        while len(buffer) - at >= HEADER.size:
            number, command, size, flags, error = HEADER.unpack_from(buffer, at)
            if not HEADER.size <= size <= MAX_MESSAGE:
                for message in messages:
                    message.close()
                raise StreamLost(f"a message of {size} bytes")
            if len(buffer) - at < size:
                break
            message = Message(number, command, flags, error, bytes(buffer[at + HEADER.size : at + size]))
            at += size
            while self._waiting and self._waiting[0][0] <= at:
                message.descriptors += self._waiting.pop(0)[1]
            messages.append(message)
        del buffer[:at]
        if self._waiting:
            self._waiting = [(offset - at, some) for offset, some in self._waiting]
        return messages

    def send(
        self,
        number: int,
        command: int,
        flags: int,
        payload: bytes = b"",
        error: int = 0,
        descriptors: Sequence[int] = (),
    ) -> None:
        """Send one message, or queue the rest for `flush`; StreamLost if the other end does not read."""
        data = HEADER.pack(number, command, HEADER.size + len(payload), flags, error) + payload
        if self._unsent:
            if len(self._unsent) > _MAX_UNSENT:
                raise StreamLost("the other end does not read")
            self._unsent += data
            return
        try:
            sent = self.socket.sendmsg([data], _rights(descriptors) if descriptors else [])
        except BlockingIOError:
            sent = 0
        except OSError:
            self.ended = True
            return
        if sent < len(data):
            self._unsent += data[sent:]

    def flush(self) -> None:
        """Send what is queued."""
        try:
            sent = self.socket.send(self._unsent)
        except BlockingIOError:
            return
        except OSError:
            self.ended = True
            return
        del self._unsent[:sent]

    def close(self) -> None:
        """Close the socket and the descriptors that no message took."""
        for _, descriptors in self._waiting:
            close_all(descriptors)
        self.socket.close()


def _descriptors(ancillary: list[tuple[int, int, bytes]]) -> list[int]:
    numbers = array.array("i")
    for level, kind, data in ancillary:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            numbers.frombytes(data[: len(data) - len(data) % numbers.itemsize])
    return numbers.tolist()


def _rights(descriptors: Iterable[int]) -> list[tuple[int, int, bytes]]:
    return [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", descriptors).tobytes())]
