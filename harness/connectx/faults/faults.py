"""Page faults: the token, what goes on at PAGE_FAULT_RESUME, and the accounts of both.

A fault belongs to one side of one operation. Three schemes, by the card's table and the driver's choice:
`2015` (flags and QPN, resume by both), `transport` (a token of 24 bits) and `memory` (by key and address,
48 bits). Ref: Linux 7.2 drivers/infiniband/hw/mlx5/odp.c mlx5_ib_pfault, mlx5_ib_page_fault_resume;
y2015.py for the first. The events themselves are in `telling.py`, those that rules invent in `forged.py`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from harness.connectx.commands.registry import (
    FirmwareError,
    Status,
)
from harness.connectx.faults.fault_events import (
    Fault,
    PendingEvent,
    tell,
)
from harness.wire import eqe

if TYPE_CHECKING:
    from harness.connectx.datapath.wqe_parser import Operation
    from harness.connectx.hca import Hca
    from harness.connectx.objects.mkeys import Absent
    from harness.connectx.rules.armed_rule import Armed
    from harness.wire.bits import Struct

TOKEN_BITS = 24

MAX_AGAIN = 1024
"""Faults of one operation without a byte of progress until it fails: a driver that resumes without
mapping."""

AGAIN_S = 0.001

MAX_FORGED = 1024
"""Invented events whose answer is waited for: many kinds never get one, and a soak goes on for long."""


class Faults:
    """Open faults of a card and their accounts."""

    def __init__(self, hca: Hca) -> None:
        self._hca = hca
        self.open: dict[int, Fault] = {}
        self.last_closed: int | None = None
        self._next = 1
        self.raised = self.resumed = self.failed = self.dropped = self.unknown = 0
        self.events = self.withheld = self.invented = self.invented_resumed = self.invented_failed = 0
        self.resumes_lost = self.resumes_refused = self.resumes_moot = 0
        self._moot: dict[int, Fault] = {}
        self._forged: dict[int, list[tuple[Armed, bool]]] = {}
        self._behind: list[PendingEvent] = []
        self.by_kind: dict[str, int] = {}
        self._open_s = self._longest_s = 0.0

    @property
    def scheme(self) -> str:
        """How faults are told now."""
        scheme = self._hca.model.odp_scheme
        if scheme == "memory" and not self._hca.capabilities.memory_scheme:
            return "transport"
        return scheme

    def park(self, operation: Operation, side: str, absent: Absent) -> bool:
        """Stop the operation and tell the driver; False when nobody listens or it has faulted too often."""
        operation.again += 1
        if operation.again > MAX_AGAIN:
            self._hca.judge.find(
                "fault-loop", f"qp {operation.qp.number:#x}", f"{MAX_AGAIN} resumes without progress"
            )
            return False
        if self._hca.events.queue_for(eqe.PAGE_FAULT) is None:
            self._hca.judge.find(
                "bad-value", f"key {absent.key.value:#x}", "page fault without an event queue"
            )
            return False
        telling = tell(self.scheme, self.token(), operation, side, absent, self._hca.clock())
        fault = telling.fault
        if fault.key in self.open:  # without tokens a queue has one fault of a kind at a time
            self._hca.requester.again(operation, AGAIN_S)
            return True
        self._open(fault, absent)
        self._hca.rules.telling(telling)
        self._send(telling)
        return True

    def _open(self, fault: Fault, absent: Absent) -> None:
        operation = fault.operation
        self.open[fault.key] = fault
        operation.fault = fault
        self.raised += 1
        name = f"{fault.side} {fault.kind}"
        self.by_kind[name] = self.by_kind.get(name, 0) + 1
        self._hca.log(
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
        """A token that names no fault, genuine or invented, that is open, and none that may still be resumed."""
        most = (1 << TOKEN_BITS) - 1
        while any(self._next in taken for taken in (self.open, self._forged, self._moot)):
            self._next = self._next + 1 & most or 1
        token = self._next
        self._next = token + 1 & most or 1
        return token

    # -- events

    def _send(self, telling: PendingEvent) -> None:
        """Send the genuine event now, later or never, then what rules invented."""
        if telling.withheld:
            self.withheld += 1
        elif telling.delay_s:
            if telling.passed_by:
                self._behind.append(telling)
            self._hca.timers.after(telling.delay_s, ("event", telling.fault), lambda: self._late(telling))
        else:
            self._post(telling.event, telling.sub_type)
        for forged in telling.more:
            self.forge(*forged)

    def _late(self, telling: PendingEvent) -> None:
        """The time of a delayed event has come; its fault may have ended meanwhile."""
        if telling in self._behind:
            self._behind.remove(telling)
        if self.open.get(telling.fault.key) is telling.fault:
            self._post(telling.event, telling.sub_type)
        else:
            self.withheld += 1

    def _post(self, event: Struct, sub_type: int) -> None:
        self.events += self._hca.events.post(eqe.PAGE_FAULT, event, sub_type)
        behind, self._behind = self._behind, []
        for telling in behind:
            self._hca.timers.cancel(("event", telling.fault))
            self._late(telling)

    def forge(self, armed: Armed, event: Struct, sub_type: int, key: int, refuse: bool = False) -> None:
        """Send an event that belongs to no fault; the resume that names `key` answers it."""
        self._forged.setdefault(key, []).append((armed, refuse))
        if len(self._forged) > MAX_FORGED:
            del self._forged[next(iter(self._forged))]
        self.invented += 1
        self._hca.log({"what": "invented", "rule": armed.rule.kind, "token": key, "sub": sub_type})
        self._post(event, sub_type)

    # -- resumes

    def resume(self, key: int, kind: int | None, error: bool) -> None:
        """The driver is done with a fault. An unknown one, or a wrong type, is BAD_RES and a finding."""
        fault = self.open.get(key)
        if fault is None or fault.resumed or (kind is not None and kind != fault.kind):
            if key in self._forged:
                self._answered(key, error)
                return
            if fault is None and self._moot.pop(key, None) is not None:
                self.resumes_moot += 1
                self._hca.log({"what": "resume", "token": key, "error": error, "moot": True})
                return
            self.unknown += 1
            self._hca.judge.find(
                "bad-resume", f"fault {key:#x}", "not open" if fault is None else f"type {kind}"
            )
            raise FirmwareError(Status.BAD_RES, why=f"no fault {key:#x}")
        if self._hca.rules.resuming(fault, error):
            self.finish(fault, error)

    def finish(self, fault: Fault, error: bool) -> None:
        """A resume takes effect, unless the fault has ended otherwise."""
        if self.open.get(fault.key) is not fault:
            return
        del self.open[fault.key]
        self.last_closed = fault.key
        fault.operation.fault = None
        took_s = self._hca.clock() - fault.raised_s
        self._open_s += took_s
        self._longest_s = max(self._longest_s, took_s)
        if error:
            self.failed += 1
        else:
            self.resumed += 1
        self._hca.log({"what": "resume", "token": fault.key, "error": error})
        self._hca.requester.resume(fault.operation, fault.side if error else None)

    def _answered(self, key: int, error: bool) -> None:
        """The driver resumed an event that a rule invented."""
        armed, refuse = self._forged[key].pop(0)
        if not self._forged[key]:
            del self._forged[key]
        if error:
            self.invented_failed += 1
        else:
            self.invented_resumed += 1
        how = "resumed with error" if error else "resumed"
        armed.answers[f"{how}, refused" if refuse else how] += 1
        self._hca.log({"what": "resume", "token": key, "error": error, "invented": True})
        if refuse:
            raise FirmwareError(Status.BAD_RES, why=f"fault {key:#x} is not open")

    def drop(self, operation: Operation) -> None:
        """The operation ends for another reason: its fault is nobody's any more.

        The driver may be working on it just then and will resume it: it is not told that a queue had an error.
        """
        fault = operation.fault
        if isinstance(fault, Fault) and self.open.get(fault.key) is fault:
            del self.open[fault.key]
            self.last_closed = fault.key
            self.dropped += 1
            self._moot[fault.key] = fault
            if len(self._moot) > MAX_FORGED:
                del self._moot[next(iter(self._moot))]
        operation.fault = None

    def gone(self, qp_number: int) -> None:
        """A queue is no more: a driver that knows whose its faults were does not resume them afterwards.

        Of the memory scheme it does not know. Ref: Linux 7.3 drivers/infiniband/hw/mlx5/qpc.c,
        destroy_resource_common, which waits for whoever works on a fault of the queue
        """
        for key, fault in list(self._moot.items()):
            if self.scheme != "memory" and qp_number in (fault.operation.qp.number, fault.operation.target):
                del self._moot[key]

    def clear(self) -> None:
        """A reset: nothing is open any more, and the accounts still balance."""
        self.dropped += len(self.open)
        self.withheld += len(self._behind)
        self.open.clear()
        self._forged.clear()
        self._behind.clear()
        self._moot.clear()

    def counters(self) -> dict[str, int]:
        """The accounts, with and without rules, and how long events waited for their resume.

        Faults of the workload: raised = resumed + failed + dropped + open, whatever rules do. What rules invent
        is apart: invented = invented_resumed + invented_failed + invented_open, where the driver answers an
        event on a queue that is not there with no resume at all. So the driver gets `events` = raised -
        withheld + invented page-fault events (but those that a rule delays just now), each one a work of its
        page-fault queue; and of its PAGE_FAULT_RESUME commands that are no rule's prey, commands = resumed +
        failed + invented_resumed + invented_failed + resumes_lost + resumes_refused + resumes_moot (their fault
        had ended otherwise) + unknown_resumes.
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
            "invented": self.invented,
            "invented_resumed": self.invented_resumed,
            "invented_failed": self.invented_failed,
            "invented_open": self.invented - self.invented_resumed - self.invented_failed,
            "resumes_lost": self.resumes_lost,
            "resumes_refused": self.resumes_refused,
            "resumes_moot": self.resumes_moot,
            "unknown_resumes": self.unknown,
            **self.by_kind,
        }
