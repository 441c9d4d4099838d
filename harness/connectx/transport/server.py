"""One client at a time on a listening socket: connection, DMA by message, and time. One thread, one loop.

A stream that cannot be followed is closed; the card itself goes on and takes the next client.
"""

from __future__ import annotations

import socket

from harness.connectx.transport import vfio_messages
from harness.connectx.transport.loop import (
    READABLE,
    WRITABLE,
    Loop,
)
from harness.connectx.transport.memory import (
    DmaError,
    Done,
)
from harness.connectx.transport.vfio_messages import (
    Command,
    Message,
    Stream,
    StreamLost,
)
from harness.connectx.transport.vfio_user import Answers

_MAX_OUTSTANDING = 1024


class Server:
    """Serves what `answers` answers for."""

    def __init__(self, answers: Answers, loop: Loop) -> None:
        self.answers = answers
        self.report = answers.report
        self.clients = 0
        self._stream: Stream | None = None
        self._loop = loop
        self._asked: dict[int, tuple[int, int, Done]] = {}
        self._to_ask: list[tuple[Command, bytes, int, Done | None]] = []
        self._number = 0
        self._blocked = False
        answers.memory.messages = self
        loop.timer = self.tick

    @property
    def attached(self) -> bool:
        """Whether a client is connected."""
        return self._stream is not None

    def listen(self, listener: socket.socket) -> None:
        """Take clients from `listener` as long as the loop runs."""
        listener.setblocking(False)
        self._loop.add(listener, lambda _events: self._accept(listener))

    def _accept(self, listener: socket.socket) -> None:
        try:
            connection, _ = listener.accept()
        except OSError:
            return
        self._ready(READABLE)  # the one before may have left unseen
        if self._stream is not None:
            self.report("refused", {"why": "a second client, while one is attached"})
            connection.close()
            return
        self.attach(connection)

    def attach(self, connection: socket.socket) -> None:
        """Serve this connection until it ends."""
        self._stream = Stream(connection)
        self._blocked = False
        self.clients += 1
        self._loop.add(self._stream, self._ready)
        self.report("attached", {"client": self.clients})

    def drop(self, why: str) -> None:
        """End the connection: memory and interrupts go back, the device is told, the next client may come."""
        stream, self._stream = self._stream, None
        if stream is None:
            return
        self._loop.remove(stream)
        stream.close()
        asked, self._asked = self._asked, {}
        unsent, self._to_ask = self._to_ask, []
        for done in [entry[2] for entry in asked.values()] + [entry[3] for entry in unsent if entry[3]]:
            self.answers.guard("dma", lambda done=done: done(None))  # type: ignore[misc]
        self.answers.forget()
        self.report("detached", {"why": why})

    def _ready(self, events: int) -> None:
        stream = self._stream
        if stream is None:
            return
        try:
            if events & WRITABLE:
                stream.flush()
            messages = stream.receive() if events & READABLE else []
            try:
                for message in messages:
                    self._answer(stream, message)
            finally:
                for message in messages:
                    message.close()
            self._settle(stream)
        except StreamLost as problem:
            self.report("protocol", {"why": str(problem)})
            self.drop(f"the card closed the connection: {problem}")
            return
        if stream.ended:
            self.drop("the client closed the connection")

    def _settle(self, stream: Stream) -> None:
        """Send the DMA messages that were queued; wait for room when the client does not read."""
        if self._to_ask:
            self._ask(stream)
        if stream.unsent != self._blocked:
            self._blocked = stream.unsent
            self._loop.change(stream, self._ready, READABLE | WRITABLE if self._blocked else READABLE)

    def _answer(self, stream: Stream, message: Message) -> None:
        """Answer one message, whatever it is."""
        kind = message.flags & vfio_messages.TYPE_MASK
        if kind == vfio_messages.REPLY:
            self._answered(message)
            return
        if kind != vfio_messages.REQUEST:
            raise StreamLost(f"message type {kind}")
        number, payload = self.answers.answer(message)
        if not message.flags & vfio_messages.NO_REPLY:
            flags = vfio_messages.REPLY | vfio_messages.ERROR if number else vfio_messages.REPLY
            stream.send(message.number, message.command, flags, payload, number)

    def dma_read(self, address: int, size: int, done: Done) -> None:
        """Ask for guest memory; the message leaves when the access in hand has been answered."""
        self._queue(Command.DMA_READ, vfio_messages.DMA.pack(address, size), size, done)

    def dma_write(self, address: int, data: bytes, done: Done) -> None:
        """Send to guest memory; the message leaves when the access in hand has been answered."""
        self._queue(Command.DMA_WRITE, vfio_messages.DMA.pack(address, len(data)) + data, 0, done)

    def post(self, address: int, data: bytes) -> None:
        """Send to guest memory without an answer: an interrupt."""
        self._queue(Command.DMA_WRITE, vfio_messages.DMA.pack(address, len(data)) + data, 0, None)

    def _queue(self, command: Command, payload: bytes, size: int, done: Done | None) -> None:
        address, count = vfio_messages.DMA.unpack_from(payload)
        if self._stream is None:
            raise DmaError(address, count, "no client")
        if max(size, len(payload)) > vfio_messages.MAX_TRANSFER or len(self._asked) >= _MAX_OUTSTANDING:
            raise DmaError(address, count, "more than a message holds, or too many of them")
        self._to_ask.append((command, payload, size, done))

    def _ask(self, stream: Stream) -> None:
        requests, self._to_ask = self._to_ask, []
        for command, payload, size, done in requests:
            self._number = (self._number + 1) & 0xFFFF
            if done is not None:
                self._asked[self._number] = (command, size, done)
            flags = (
                vfio_messages.REQUEST if done is not None else vfio_messages.REQUEST | vfio_messages.NO_REPLY
            )
            stream.send(self._number, command, flags, payload)

    def _answered(self, message: Message) -> None:
        """A reply to a DMA message; one that nobody waits for is dropped."""
        command, size, done = self._asked.pop(message.number, (0, 0, None))
        if done is None or command != message.command:
            why = f"a reply to nothing: message {message.number}, errno {message.error}"
            self.report("protocol", {"why": why})
            return
        data: bytes | None = None
        if not message.flags & vfio_messages.ERROR:
            data = message.payload[vfio_messages.DMA.size : vfio_messages.DMA.size + size] if size else b""
            data = data if len(data) == size else None
        self.answers.guard("dma", lambda: done(data))

    def tick(self) -> float | None:
        """The device's timers; then the DMA messages they queued."""
        due = self.answers.guard("tick", self.answers.device.tick)
        if self._to_ask and self._stream is not None:
            try:
                self._settle(self._stream)
            except StreamLost as problem:
                self.drop(str(problem))
        return due if isinstance(due, (int, float)) else None
