"""Control socket of a card: rules in; findings, counters and the conversation out. JSON, a line each.

A request is `{"do": name, ...}`, its answer `{"ok": true, ...}` or `{"ok": false, "error": text}`. After
`{"do": "follow"}` the connection also carries events, as `{"event": name, ...}`, among the answers.

    ping        {"model", "pid", "attached"}
    rules       `rules`, a list; replaces the rules that are armed
    outcomes    {"outcomes": [...]}: of each rule so far
    findings    {"findings": [...]}: protocol violations and defects of the card so far
    counters    {"counters": {...}}
    follow      events from now on: finding, attached, detached, reset, note (commands, events, faults), bye
    quit        the card ends; the reason goes out as the event `bye`
"""

from __future__ import annotations

import errno
import json
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from harness.connectx.transport.loop import (
    READABLE,
    WRITABLE,
    Loop,
)
from harness.errors import SetupError, UsageError

_MAX_LINE = 1 << 22
_MAX_UNREAD = 1 << 24

Body = dict[str, Any]
Verb = Callable[[Body], Body]


def listen(path: Path) -> socket.socket:
    """Listen on a UNIX socket at `path`; UsageError when that is taken, a dead card's socket is replaced."""
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        listener.bind(str(path))
    except OSError as problem:
        if problem.errno != errno.EADDRINUSE:
            listener.close()
            hint = "a short path in a folder you may write"
            raise UsageError(f"cannot listen on {path}", [str(problem)], hint) from problem
        try:
            _clear_stale(path)
            listener.bind(str(path))
        except BaseException:
            listener.close()
            raise
    listener.listen(8)
    return listener


def _clear_stale(path: Path) -> None:
    if not path.is_socket():
        raise UsageError(f"{path} exists and is no socket", hint="another path, or remove the file")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(1.0)
        try:
            probe.connect(str(path))
        except ConnectionRefusedError:
            path.unlink(missing_ok=True)
            return
        except OSError as problem:
            raise UsageError(f"socket path {path} is taken", [str(problem)]) from problem
    raise UsageError(f"socket path {path} is taken", ["a process listens there"], "another path, or end it")


class Control:
    """Server; `verbs` answer requests, each gets the request and returns the answer's body."""

    def __init__(self, loop: Loop, listener: socket.socket, verbs: dict[str, Verb]) -> None:
        self.verbs = {"follow": lambda _body: {}, **verbs}
        self.on_last_gone: Callable[[], None] = lambda: None
        self._loop = loop
        self._clients: list[_Connection] = []
        listener.setblocking(False)
        loop.add(listener, lambda _events: self._accept(listener))

    def _accept(self, listener: socket.socket) -> None:
        try:
            connection, _ = listener.accept()
        except OSError:
            return
        client = _Connection(connection)
        self._clients.append(client)
        self._loop.add(connection, lambda events: self._ready(client, events))

    @property
    def followed(self) -> bool:
        """True when a client follows."""
        return any(client.follows for client in self._clients)

    def publish(self, event: str, **details: Any) -> None:
        """Send an event to the followers."""
        for client in [client for client in self._clients if client.follows]:
            self._put(client, {"event": event, **details})

    def _ready(self, client: _Connection, events: int) -> None:
        if client not in self._clients:
            return
        if events & READABLE:
            for line in client.lines():
                body = self._answer(line)
                if body.get("ok") and _verb(line) == "follow":
                    client.follows = True
                self._put(client, body)
        if events & WRITABLE:
            client.flush()
        self._settle(client)

    def _put(self, client: _Connection, body: Body) -> None:
        client.unsent += json.dumps(body, default=str).encode() + b"\n"
        client.flush()
        self._settle(client)

    def _settle(self, client: _Connection) -> None:
        if client not in self._clients:
            return
        if client.gone or len(client.unsent) > _MAX_UNREAD:
            self._clients.remove(client)
            self._loop.remove(client.socket)
            client.socket.close()
            if not self._clients:
                self.on_last_gone()
        elif bool(client.unsent) != client.blocked:
            client.blocked = bool(client.unsent)
            mask = READABLE | WRITABLE if client.blocked else READABLE
            self._loop.change(client.socket, lambda events: self._ready(client, events), mask)

    def _answer(self, line: bytes) -> Body:
        try:
            request = json.loads(line)
            verb = self.verbs[request["do"]]
        except (ValueError, RecursionError) as problem:
            return {"ok": False, "error": f"not JSON: {problem}"}
        except (KeyError, TypeError):
            return {"ok": False, "error": "do: one of " + ", ".join(sorted(self.verbs))}
        try:
            return {"ok": True, **verb(request)}
        except Exception as problem:
            return {"ok": False, "error": f"{type(problem).__name__}: {problem}"}

    def close(self) -> None:
        """Disconnect all clients."""
        for client in self._clients:
            self._loop.remove(client.socket)
            client.socket.close()
        self._clients.clear()


def _verb(line: bytes) -> Any:
    return json.loads(line)["do"]


class _Connection:
    def __init__(self, connection: socket.socket) -> None:
        connection.setblocking(False)
        self.socket = connection
        self.follows = False
        self.blocked = False
        self.gone = False
        self.unsent = b""
        self._received = b""

    def lines(self) -> list[bytes]:
        try:
            data = self.socket.recv(1 << 16)
        except BlockingIOError:
            return []
        except OSError:
            data = b""
        if not data or len(self._received) > _MAX_LINE:
            self.gone = True
            return []
        *whole, self._received = (self._received + data).split(b"\n")
        return [line for line in whole if line.strip()]

    def flush(self) -> None:
        while self.unsent and not self.gone:
            try:
                sent = self.socket.send(self.unsent)
            except BlockingIOError:
                return
            except OSError:
                self.gone = True
                return
            self.unsent = self.unsent[sent:]


class ControlClient:
    """Client of a card, for tests and device/emulated.py. Waits up to `timeout_s` for an answer."""

    def __init__(self, path: Path, timeout_s: float = 10.0) -> None:
        self.path = path
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._socket.settimeout(timeout_s)
        try:
            self._socket.connect(str(path))
        except OSError as problem:
            self._socket.close()
            raise SetupError(f"no card answers on {path}", [str(problem)]) from problem
        self._received = b""
        self._events: list[Body] = []

    def ask(self, do: str, **body: Any) -> Body:
        """Send one request, return its answer; SetupError when the card is gone or refuses."""
        try:
            self._socket.sendall(json.dumps({"do": do, **body}).encode() + b"\n")
        except OSError as problem:
            raise SetupError(f"the card at {self.path} is gone", [str(problem)]) from problem
        while True:
            line = self._line()
            if "ok" not in line:
                self._events.append(line)
            elif line["ok"]:
                return line
            else:
                raise SetupError(f"the card refuses {do!r}", [str(line["error"])])

    def events(self) -> Iterator[Body]:
        """Follow the card and yield its events; ends when the card does."""
        self.ask("follow")
        while True:
            while self._events:
                yield self._events.pop(0)
            try:
                line = self._line()
            except SetupError:
                return
            if "event" in line:
                yield line

    def _line(self) -> Body:
        while b"\n" not in self._received:
            try:
                data = self._socket.recv(1 << 16)
            except OSError as problem:
                raise SetupError(f"no answer from the card at {self.path}", [str(problem)]) from problem
            if not data:
                raise SetupError(f"the card at {self.path} hung up")
            self._received += data
        text, self._received = self._received.split(b"\n", 1)
        line: Body = json.loads(text)
        return line

    def close(self) -> None:
        """Disconnect."""
        self._socket.close()
