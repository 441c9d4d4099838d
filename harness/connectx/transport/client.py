"""Client side of vfio-user (QEMU's), in this process: for unit tests and the bench, without a VM."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Callable, Sequence

from harness.connectx.transport import vfio_messages
from harness.connectx.transport.interrupts import MSIX
from harness.connectx.transport.vfio_messages import (
    Command,
    Message,
    Stream,
)

CONFIG = 7
_DATA_EVENTFD_TRIGGER = 4 | 32
_DATA_NONE_TRIGGER = 1 | 32
_ANSWER_WAIT_S = 10.0


class Answered(Exception):
    """The server answered with an error; `number` is the errno."""

    def __init__(self, number: int) -> None:
        super().__init__(os.strerror(number))
        self.number = number


class Client:
    """Blocking client. `pump` runs a server in this thread; without it the server is another process."""

    def __init__(self, connection: socket.socket, pump: Callable[[], object] | None = None) -> None:
        self.stream = Stream(connection)
        self.requests: list[Message] = []
        self._pump = pump
        self._replies: dict[int, Message] = {}
        self._number = 0
        if pump is None:
            connection.settimeout(_ANSWER_WAIT_S)

    def post(
        self, command: int, payload: bytes = b"", descriptors: Sequence[int] = (), flags: int = 0
    ) -> int:
        """Send a message without waiting; return its number."""
        self._number = (self._number + 1) & 0xFFFF
        self.stream.send(self._number, command, flags, payload, descriptors=descriptors)
        return self._number

    def ask(self, command: int, payload: bytes = b"", descriptors: Sequence[int] = ()) -> bytes:
        """Send a message and return the reply's payload; Answered on an error reply."""
        return self.wait(self.post(command, payload, descriptors))

    def wait(self, number: int) -> bytes:
        """Return the payload of the reply to message `number`; ConnectionError when the server has disconnected."""
        while number not in self._replies:
            if self._pump is not None:
                self._pump()
            self._sort(self.stream.receive())
            if self.stream.ended and number not in self._replies:
                raise ConnectionError("the server closed the connection")
        reply = self._replies.pop(number)
        if reply.flags & vfio_messages.ERROR:
            raise Answered(reply.error)
        return reply.payload

    def poll(self) -> list[Message]:
        """Run the server once; return the requests (DMA messages) it has sent so far."""
        if self._pump is not None:
            self._pump()
        self._sort(self.stream.receive())
        requests, self.requests = self.requests, []
        return requests

    def _sort(self, messages: list[Message]) -> None:
        for message in messages:
            if message.flags & vfio_messages.TYPE_MASK == vfio_messages.REPLY:
                self._replies[message.number] = message
            else:
                self.requests.append(message)

    def hello(self) -> dict[str, object]:
        """Negotiate version 0.0; return the server's capabilities."""
        text = json.dumps({"capabilities": {"max_msg_fds": 16, "write_multiple": True}}).encode()
        reply = self.ask(Command.VERSION, vfio_messages.VERSION.pack(0, 0) + text + b"\0")
        capabilities: dict[str, object] = json.loads(reply[vfio_messages.VERSION.size :].rstrip(b"\0"))
        return capabilities

    def map(self, address: int, size: int, descriptor: int | None, offset: int = 0, flags: int = 3) -> None:
        """Map memory."""
        payload = vfio_messages.DMA_MAP.pack(vfio_messages.DMA_MAP.size, flags, offset, address, size)
        self.ask(Command.DMA_MAP, payload, [] if descriptor is None else [descriptor])

    def unmap(self, address: int, size: int) -> None:
        """Unmap memory."""
        self.ask(
            Command.DMA_UNMAP, vfio_messages.DMA_UNMAP.pack(vfio_messages.DMA_UNMAP.size, 0, address, size)
        )

    def read(self, region: int, offset: int, size: int) -> bytes:
        """Read a region."""
        reply = self.ask(Command.REGION_READ, vfio_messages.REGION.pack(offset, region, size))
        return reply[vfio_messages.REGION.size :]

    def write(self, region: int, offset: int, data: bytes, posted: bool = False) -> None:
        """Write a region; a posted write is not answered."""
        payload = vfio_messages.REGION.pack(offset, region, len(data)) + data
        number = self.post(Command.REGION_WRITE, payload, flags=vfio_messages.NO_REPLY if posted else 0)
        if not posted:
            self.wait(number)

    def listen(self, vectors: int, start: int = 0) -> list[int]:
        """Give the first MSI-X vectors an eventfd each, in messages of at most 16; the caller closes them."""
        events = [os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC) for _ in range(vectors)]
        for at in range(0, vectors, vfio_messages.MAX_DESCRIPTORS):
            some = events[at : at + vfio_messages.MAX_DESCRIPTORS]
            head = vfio_messages.SET_IRQS.pack(
                vfio_messages.SET_IRQS.size, _DATA_EVENTFD_TRIGGER, MSIX, start + at, len(some)
            )
            self.ask(Command.SET_IRQS, head, some)
        return events

    def mute(self) -> None:
        """Remove every MSI-X eventfd."""
        head = vfio_messages.SET_IRQS.pack(vfio_messages.SET_IRQS.size, _DATA_NONE_TRIGGER, MSIX, 0, 0)
        self.ask(Command.SET_IRQS, head)

    def close(self) -> None:
        """Disconnect."""
        self.stream.close()
