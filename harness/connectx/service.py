"""Service of a card: a device model, its two sockets, its log, one loop."""

from __future__ import annotations

import os
import socket
import sys
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from harness.connectx.conversation.log import (
    Recorder,
    RecordingInterrupts,
    RecordingMemory,
    Writer,
)
from harness.connectx.device import Interrupts
from harness.connectx.transport.control import Body, Control, listen
from harness.connectx.transport.interrupts import EventInterrupts
from harness.connectx.transport.loop import Loop
from harness.connectx.transport.memory import Memory
from harness.connectx.transport.msix import MessageInterrupts
from harness.connectx.transport.pci import (
    ConfigSpace,
    PciIdentity,
)
from harness.connectx.transport.server import Server
from harness.connectx.transport.vfio_user import (
    Answers,
    Device,
)
from harness.errors import UsageError

_MAX_FINDINGS = 10_000
_PROBLEMS = {"crash": "model-crash", "protocol": "vfio-user", "refused": "vfio-user"}

Note = dict[str, Any]


Build = Callable[[Memory, Interrupts, Callable[[Note], None]], Device]


@runtime_checkable
class TakesRules(Protocol):
    """A device that takes injection rules."""

    def arm(self, rules: Sequence[Any]) -> None:
        """Replace the rules."""

    def outcomes(self) -> list[Note]:
        """Return the outcome of each rule."""


@runtime_checkable
class HasFindings(Protocol):
    """A device with findings and counters of its own."""

    def findings(self) -> list[Note]:
        """Return the findings, each with kind, subject and detail."""

    def counters(self) -> dict[str, Any]:
        """Return numbers by name."""


class Service:
    """A device, made by `build`, in service; `close` removes its sockets.

    `log` is the file of the conversation log, .gz for a compressed one; without it nothing is recorded.
    """

    def __init__(
        self,
        build: Build,
        identity: PciIdentity,
        path: Path,
        control: Path,
        log: Path | None = None,
        own_msix: bool = True,
    ) -> None:
        self.loop = Loop()
        self._findings: deque[Note] = deque(maxlen=_MAX_FINDINGS)
        self.writer = Writer(log, device=identity.device) if log else None
        self.lines: Callable[[str], None] = lambda line: print(line, file=sys.stderr, flush=True)
        self._sockets: list[tuple[Path, socket.socket, int]] = []
        self.events: EventInterrupts | MessageInterrupts = (
            MessageInterrupts(identity.vectors, self._message)
            if own_msix
            else EventInterrupts(identity.vectors)
        )
        self.device, memory = self._device(build)
        config = ConfigSpace(identity, on_flr=self._flr, late_msix=own_msix)
        self.answers = Answers(self.device, config, memory, self.events, self.report)
        self.server = Server(self.answers, self.loop)
        try:
            self.server.listen(self._open(path))
            self.control = Control(self.loop, self._open(control), self._verbs())
        except BaseException:
            self.close()
            raise

    def _device(self, build: Build) -> tuple[Device, Memory]:
        if self.writer is None:
            plain = Memory()
            return build(plain, self.events, self.note), plain
        recorded, vectors = RecordingMemory(self.writer), RecordingInterrupts(self.events)
        self._model = build(recorded, vectors, self.note)
        return Recorder(self._model, recorded, vectors, self.writer), recorded

    def _open(self, path: Path) -> socket.socket:
        listener = listen(path)
        self._sockets.append((path, listener, path.stat().st_ino))
        return listener

    def _message(self, address: int, data: bytes) -> None:
        self.server.post(address, data)

    def _flr(self) -> None:
        self.answers.reset("function level reset")

    @property
    def model(self) -> Device:
        """Device model itself, behind a recorder if there is one."""
        return self.device.device if isinstance(self.device, Recorder) else self.device

    # -- notes and reports

    def note(self, entry: Note) -> None:
        """Write a note of the device to the log and to followers."""
        if self.writer is not None:
            self.writer({"k": "note", **entry})
        if self.control_followed:
            self.control.publish("note", **entry)

    @property
    def control_followed(self) -> bool:
        """True when a client follows; also works before the control socket exists."""
        return "control" in self.__dict__ and self.control.followed

    def report(self, kind: str, details: Note) -> None:
        """Handle a report of the transport: problems become findings, the rest events."""
        if kind in _PROBLEMS:
            subject, detail = details.get("during", kind), details["why"]
            trace = {"trace": details["trace"]} if "trace" in details else {}
            self._findings.append({"kind": _PROBLEMS[kind], "subject": subject, "detail": detail, **trace})
            self.lines(f"card: {_PROBLEMS[kind]}: {subject}: {detail}")
        elif kind in ("attached", "detached", "reset"):
            self.lines(f"card: {kind}" + "".join(f", {name} {value}" for name, value in details.items()))
        elif kind == "map" and not details["shared"] and details["flags"] & 2:
            self._findings.append(_unshared(details))
        if self.control_followed and kind not in ("map", "unmap"):
            self.control.publish("finding" if kind in _PROBLEMS else kind, **details)

    def _verbs(self) -> dict[str, Callable[[Body], Body]]:
        return {
            "ping": lambda _: {"pid": os.getpid(), "attached": self.server.attached},
            "rules": self._rules,
            "outcomes": lambda _: {"outcomes": self._takes_rules().outcomes()},
            "findings": lambda _: {"findings": self.findings()},
            "counters": lambda _: {"counters": self.counters()},
            "quit": self._quit,
        }

    def _rules(self, body: Body) -> Body:
        rules = body.get("rules")
        if not isinstance(rules, list):
            raise UsageError("rules: a list")
        self._takes_rules().arm(rules)
        return {"armed": len(rules)}

    def _takes_rules(self) -> TakesRules:
        if not isinstance(self.model, TakesRules):
            raise UsageError("this card takes no rules")
        return self.model

    def _quit(self, body: Body) -> Body:
        self.loop.stop("quit on the control socket")
        return {}

    def findings(self) -> list[Note]:
        """Return the device's findings, then the transport's."""
        own = self.model.findings() if isinstance(self.model, HasFindings) else []
        return [*own, *self._findings]

    def counters(self) -> dict[str, Any]:
        """Return counters of the device and of the transport."""
        own = self.model.counters() if isinstance(self.model, HasFindings) else {}
        transport = {**self.answers.counters, "clients": self.server.clients}
        return {
            **own,
            "transport": transport,
            "interrupts": self.events.fired,
            "interrupts_lost": self.events.lost,
        }

    # -- run and close

    def run(self) -> str:
        """Serve until the loop is stopped or a signal comes; return why."""
        reason = "failed"
        try:
            reason = self.loop.run()
        except SystemExit as end:
            reason = str(end)
        except BaseException as problem:
            reason = f"{type(problem).__name__}: {problem}"
            raise
        finally:
            self.control.publish("bye", why=reason)
            self.lines(f"card: ends: {reason}")
            self.close()
        return reason

    def close(self) -> None:
        """Disconnect, close the log, remove the sockets of this card."""
        self.server.drop("the card ends")
        if "control" in self.__dict__:
            self.control.close()
        for path, listener, inode in self._sockets:
            self.loop.remove(listener)
            listener.close()
            if path.is_socket() and path.stat().st_ino == inode:
                path.unlink()
        self._sockets.clear()
        if self.writer is not None:
            self.writer.close()
            self.writer = None
        self.loop.close()


def _unshared(details: Note) -> Note:
    subject = f"memory at {details['address']:#x}, {details['size']:#x} bytes"
    return {
        "kind": "memory-unshared",
        "subject": subject,
        "detail": "came without a descriptor: the guest's memory backend needs share=on",
    }
