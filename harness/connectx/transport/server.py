"""vfio-user server: one client at a time on a listening socket, interrupts by message, timers.

A stream that cannot be parsed is closed; the card itself continues and takes the next client.
"""

from __future__ import annotations

import socket

from harness.connectx.transport import vfio_messages
from harness.connectx.transport.loop import (
    READABLE,
    WRITABLE,
    Loop,
)
from harness.connectx.transport.memory import DmaError
from harness.connectx.transport.vfio_messages import (
    Command,
    Message,
    Stream,
    StreamLost,
)
from harness.connectx.transport.vfio_user import Answers


class Server:
    """Server of one device, whose requests `answers` handles."""

    def __init__(self, answers: Answers, loop: Loop) -> None:
        self.answers = answers
        self.report = answers.report
        self.clients = 0
        self._stream: Stream | None = None
        self._loop = loop
        self._posted: list[bytes] = []
        self._number = 0
        self._blocked = False
        loop.timer = self.tick

    @property
    def attached(self) -> bool:
        """True while a client is connected."""
        return self._stream is not None

    def listen(self, listener: socket.socket) -> None:
        """Accept clients from `listener` as long as the loop runs."""
        listener.setblocking(False)
        self._loop.add(listener, lambda _events: self._accept(listener))

    def _accept(self, listener: socket.socket) -> None:
        try:
            connection, _ = listener.accept()
        except OSError:
            return
        self._ready(READABLE)  # the previous one may have left unnoticed
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
        """End the connection: maps and interrupts are removed, the device detaches, the next client may come."""
        stream, self._stream = self._stream, None
        if stream is None:
            return
        self._loop.remove(stream)
        stream.close()
        self._posted.clear()
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
        """Send the messages that were queued; wait for room when the client does not read."""
        posted, self._posted = self._posted, []
        for payload in posted:
            self._number = (self._number + 1) & 0xFFFF
            flags = vfio_messages.REQUEST | vfio_messages.NO_REPLY
            stream.send(self._number, Command.DMA_WRITE, flags, payload)
        if stream.unsent != self._blocked:
            self._blocked = stream.unsent
            self._loop.change(stream, self._ready, READABLE | WRITABLE if self._blocked else READABLE)

    def _answer(self, stream: Stream, message: Message) -> None:
        """Answer one message, whatever it is."""
        kind = message.flags & vfio_messages.TYPE_MASK
        if kind == vfio_messages.REPLY:
            why = f"a reply to nothing: message {message.number}, errno {message.error}"
            self.report("protocol", {"why": why})
            return
        if kind != vfio_messages.REQUEST:
            raise StreamLost(f"message type {kind}")
        number, payload = self.answers.answer(message)
        if not message.flags & vfio_messages.NO_REPLY:
            flags = vfio_messages.REPLY | vfio_messages.ERROR if number else vfio_messages.REPLY
            stream.send(message.number, message.command, flags, payload, number)

    def post(self, address: int, data: bytes) -> None:
        """Write to guest memory without a reply: an interrupt.

        The message is sent when the access in progress has been answered: QEMU may hold its lock until then.
        """
        if self._stream is None:
            raise DmaError(address, len(data), "no client")
        self._posted.append(vfio_messages.DMA.pack(address, len(data)) + data)

    def tick(self) -> float | None:
        """Run the device's timers, then send the messages they queued; return seconds until the next timer."""
        due = self.answers.guard("tick", self.answers.device.tick)
        if self._posted and self._stream is not None:
            try:
                self._settle(self._stream)
            except StreamLost as problem:
                self.drop(str(problem))
        return due if isinstance(due, (int, float)) else None
