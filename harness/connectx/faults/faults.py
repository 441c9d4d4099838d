"""Page faults: tokens, PAGE_FAULT_RESUME, injected events, and the counters of the conservation check.

A fault belongs to one side of one operation. Three schemes, by the card's table and the driver's choice:
`2015` (flags and QPN, resume by both), `transport` (a token of 24 bits) and `memory` (by key and address,
48 bits). Ref: Linux 7.2 drivers/infiniband/hw/mlx5/odp.c mlx5_ib_pfault, mlx5_ib_page_fault_resume;
y2015.py for the first. `fault_events.py` builds the events, `bogus_events.py` those that rules inject.
"""

from __future__ import annotations

import enum
from collections.abc import Callable

from harness.connectx.device import DeviceState
from harness.connectx.faults.bogus_events import EVENT_ACTIONS, destroyed_object
from harness.connectx.faults.fault_events import PendingEvent, build
from harness.connectx.objects.capabilities import Capabilities
from harness.connectx.objects.mkeys import Absent
from harness.connectx.objects.operation import Fault, Operation
from harness.connectx.objects.queues import Events
from harness.connectx.rules.armed_rule import ArmedRule
from harness.connectx.rules.rules import InjectionRules
from harness.connectx.status import FirmwareError, Status
from harness.wire import eqe
from harness.wire.bits import Struct

TOKEN_BITS = 24

MAX_AGAIN = 1024
"""Faults of one operation without a byte of progress until it fails: a driver that resumes without
mapping."""

MAX_INJECTED = 1024
"""Injected events whose resume is awaited: many kinds never get one, and a soak lasts long."""

OnResume = Callable[[Operation, str | None], None]


class Parked(enum.Enum):
    """Result of `Faults.park`."""

    RAISED = "raised"
    BUSY = "busy"  # without tokens a queue has one fault of a kind at a time: look again
    UNRESOLVED = "unresolved"  # no event queue, or too many faults in a row


class Faults:
    """Open faults of a card and their counters.

    `on_resume` gets the operation of a fault that a resume ended, and the side on which it could not be resolved.
    """

    def __init__(
        self,
        device: DeviceState,
        events: Events,
        capabilities: Capabilities,
        rules: InjectionRules,
        on_resume: OnResume,
    ) -> None:
        self._device, self._events, self._capabilities = device, events, capabilities
        self._rules, self._on_resume = rules, on_resume
        self.open: dict[int, Fault] = {}
        self.last_closed: int | None = None
        self._next = 1
        self.raised = self.resumed = self.failed = self.dropped = self.unknown = 0
        self.events = self.withheld = self.injected = self.injected_resumed = self.injected_failed = 0
        self.resumes_lost = self.resumes_refused = self.resumes_moot = 0
        self._moot: dict[int, Fault] = {}
        self._injected: dict[int, list[tuple[ArmedRule, bool]]] = {}
        self._overtakable: list[PendingEvent] = []
        self.by_kind: dict[str, int] = {}
        self._open_s = self._longest_s = 0.0

    @property
    def scheme(self) -> str:
        """Scheme in use, by the card and the driver's choice."""
        scheme = self._device.model.odp_scheme
        if scheme == "memory" and not self._capabilities.memory_scheme:
            return "transport"
        return scheme

    def park(self, operation: Operation, side: str, absent: Absent) -> Parked:
        """Stop the operation and raise a fault for it."""
        operation.again += 1
        if operation.again > MAX_AGAIN:
            self._device.findings.report(
                "fault-loop", f"qp {operation.qp.number:#x}", f"{MAX_AGAIN} resumes without progress"
            )
            return Parked.UNRESOLVED
        if self._events.queue_for(eqe.PAGE_FAULT) is None:
            self._device.findings.report(
                "bad-value", f"key {absent.key.value:#x}", "page fault without an event queue"
            )
            return Parked.UNRESOLVED
        pending = build(self.scheme, self.token(), operation, side, absent, self._device.clock())
        if pending.fault.key in self.open:
            return Parked.BUSY
        self._open(pending.fault, absent)
        for armed in self._rules.event(side):
            note = EVENT_ACTIONS[armed.rule.kind](self, armed, pending)
            if note:
                armed.acted(note)
        self._send(pending)
        return Parked.RAISED

    def _open(self, fault: Fault, absent: Absent) -> None:
        operation = fault.operation
        self.open[fault.key] = fault
        operation.fault = fault
        self.raised += 1
        name = f"{fault.side} {fault.kind}"
        self.by_kind[name] = self.by_kind.get(name, 0) + 1
        self._device.log(
            {
                "what": "fault",
                "token": fault.key,
                "side": fault.side,
                "kind": fault.kind,
                "key": absent.key.value,
                "va": absent.va,
                "write": absent.write,
                "done": operation.done,
            }
        )

    def token(self) -> int:
        """Return a token that names no open fault, no injected event, and no fault that may still be resumed."""
        mask = (1 << TOKEN_BITS) - 1
        while any(self._next in used for used in (self.open, self._injected, self._moot)):
            self._next = self._next + 1 & mask or 1
        token = self._next
        self._next = token + 1 & mask or 1
        return token

    # -- events

    def _send(self, pending: PendingEvent) -> None:
        """Send the genuine event now, later or never, then the injected ones."""
        if pending.withheld:
            self.withheld += 1
        elif pending.delay_s:
            if pending.overtakable:
                self._overtakable.append(pending)
            self._device.timers.after(
                pending.delay_s, ("event", pending.fault), lambda: self._send_late(pending)
            )
        else:
            self._post(pending.event, pending.sub_type)
        for injected in pending.injected:
            self.inject(*injected)

    def _send_late(self, pending: PendingEvent) -> None:
        """Send a delayed event, unless its fault has ended meanwhile."""
        if pending in self._overtakable:
            self._overtakable.remove(pending)
        if self.open.get(pending.fault.key) is pending.fault:
            self._post(pending.event, pending.sub_type)
        else:
            self.withheld += 1

    def _post(self, event: Struct, sub_type: int) -> None:
        """Send an event, then those that only waited for another one to overtake them."""
        self.events += self._events.post(eqe.PAGE_FAULT, event, sub_type)
        waiting, self._overtakable = self._overtakable, []
        for pending in waiting:
            self._device.timers.cancel(("event", pending.fault))
            self._send_late(pending)

    def inject(self, armed: ArmedRule, event: Struct, sub_type: int, key: int, refuse: bool = False) -> None:
        """Send an event that belongs to no fault; the resume that names `key` answers it."""
        self._injected.setdefault(key, []).append((armed, refuse))
        if len(self._injected) > MAX_INJECTED:
            del self._injected[next(iter(self._injected))]
        self.injected += 1
        self._device.log({"what": "injected", "rule": armed.rule.kind, "token": key, "sub": sub_type})
        self._post(event, sub_type)

    def object_gone(self, kind: str, number: int) -> None:
        """Inject the events of rules that act on the end of a QP (by number) or a key (by value)."""
        for armed in self._rules.gone(kind):
            armed.acted(destroyed_object(self, armed, kind, number))

    # -- resumes

    def resume(self, key: int, kind: int | None, error: bool) -> None:
        """Do a PAGE_FAULT_RESUME. One of an unknown fault, or with a wrong type, is BAD_RES and a finding."""
        fault = self.open.get(key)
        if fault is None or fault.resumed or (kind is not None and kind != fault.kind):
            self._resume_no_fault(key, kind, error, fault)
            return
        override = self._rules.resume(fault)
        if override is None:
            self._finish(fault, error)
        elif override.lost:
            self.resumes_lost += 1
        elif override.refused is not None:
            self.resumes_refused += 1
            raise override.refused
        else:
            fault.resumed = True
            self._device.timers.after(override.delay_s, ("resume", fault), lambda: self._finish(fault, error))

    def _resume_no_fault(self, key: int, kind: int | None, error: bool, fault: Fault | None) -> None:
        """Do a resume of an injected event or a moot fault; any other is a finding. `fault` is open under that key."""
        if key in self._injected:
            self._resume_injected(key, error)
            return
        if fault is None and self._moot.pop(key, None) is not None:
            self.resumes_moot += 1
            self._device.log({"what": "resume", "token": key, "error": error, "moot": True})
            return
        self.unknown += 1
        self._device.findings.report(
            "bad-resume", f"fault {key:#x}", "not open" if fault is None else f"type {kind}"
        )
        raise FirmwareError(Status.BAD_RES, why=f"no fault {key:#x}")

    def _finish(self, fault: Fault, error: bool) -> None:
        """End a fault by its resume, unless it has ended otherwise."""
        if self.open.get(fault.key) is not fault:
            return
        del self.open[fault.key]
        self.last_closed = fault.key
        fault.operation.fault = None
        took_s = self._device.clock() - fault.raised_s
        self._open_s += took_s
        self._longest_s = max(self._longest_s, took_s)
        if error:
            self.failed += 1
        else:
            self.resumed += 1
        self._device.log({"what": "resume", "token": fault.key, "error": error})
        self._on_resume(fault.operation, fault.side if error else None)

    def _resume_injected(self, key: int, error: bool) -> None:
        """Count the resume of an injected event; refuse it where the rule demands it."""
        armed, refuse = self._injected[key].pop(0)
        if not self._injected[key]:
            del self._injected[key]
        if error:
            self.injected_failed += 1
        else:
            self.injected_resumed += 1
        answer = "resumed with error" if error else "resumed"
        armed.answers[f"{answer}, refused" if refuse else answer] += 1
        self._device.log({"what": "resume", "token": key, "error": error, "injected": True})
        if refuse:
            raise FirmwareError(Status.BAD_RES, why=f"fault {key:#x} is not open")

    def drop(self, operation: Operation) -> None:
        """End the fault of a WQE that ended first; a later resume of it is ignored.

        The driver may be working on the fault and will resume it: it does not learn that a queue had an error.
        """
        fault = operation.fault
        if fault is not None and self.open.get(fault.key) is fault:
            del self.open[fault.key]
            self.last_closed = fault.key
            self.dropped += 1
            self._moot[fault.key] = fault
            if len(self._moot) > MAX_INJECTED:
                del self._moot[next(iter(self._moot))]
        operation.fault = None

    def queue_gone(self, qp_number: int) -> None:
        """Expect no more resumes of a destroyed queue's faults, where the driver knows whose they were.

        With the memory scheme it does not. Ref: Linux 7.3 drivers/infiniband/hw/mlx5/qpc.c,
        destroy_resource_common, which waits for the work on a fault of the queue
        """
        for key, fault in list(self._moot.items()):
            if self.scheme != "memory" and qp_number in (fault.operation.qp.number, fault.operation.target):
                del self._moot[key]

    def clear(self) -> None:
        """Drop all open faults: a reset. The counters still add up."""
        self.dropped += len(self.open)
        self.withheld += len(self._overtakable)
        self.open.clear()
        self._injected.clear()
        self._overtakable.clear()
        self._moot.clear()

    def counters(self) -> dict[str, int]:
        """Return the counters for the conservation check, and how long faults were open.

        Three equations, with and without rules:

            raised          = resumed + failed + dropped + open
            events          = raised - withheld + injected (less those that a rule delays just now)
            resume commands = resumed + failed + injected_resumed + injected_failed
                              + resumes_lost + resumes_refused + resumes_moot + unknown_resumes

        `raised` are faults of the workload, `injected` the injected events; a driver need not resume one of those, on
        an unknown queue for example: injected = injected_resumed + injected_failed + injected_open. `events` are
        those that the driver gets, each one a work of its page-fault queue. A fault of `resumes_moot` had ended
        otherwise.
        """
        answered = self.resumed + self.failed
        return {
            "resume_mean_us": round(1e6 * self._open_s / answered) if answered else 0,
            "resume_max_us": round(1e6 * self._longest_s),
            "raised": self.raised,
            "resumed": self.resumed,
            "failed": self.failed,
            "dropped": self.dropped,
            "open": len(self.open),
            "events": self.events,
            "withheld": self.withheld,
            "injected": self.injected,
            "injected_resumed": self.injected_resumed,
            "injected_failed": self.injected_failed,
            "injected_open": self.injected - self.injected_resumed - self.injected_failed,
            "resumes_lost": self.resumes_lost,
            "resumes_refused": self.resumes_refused,
            "resumes_moot": self.resumes_moot,
            "unknown_resumes": self.unknown,
            **self.by_kind,
        }
