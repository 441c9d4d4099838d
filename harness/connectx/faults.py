"""Page faults: the event, the token, and what goes on at PAGE_FAULT_RESUME.

A fault belongs to one side of one operation. Three schemes, by the card's table and the driver's choice:
`2015` (flags and QPN, resume by both), `transport` (a token of 24 bits) and `memory` (by key and address,
48 bits). Ref: Linux 7.2 drivers/infiniband/hw/mlx5/odp.c mlx5_ib_pfault, mlx5_ib_page_fault_resume;
y2015.py for the first.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from harness.connectx.command import FirmwareError, Status
from harness.connectx.work import RETURNS, WRITES
from harness.wire import eqe, y2015

if TYPE_CHECKING:
    from harness.connectx.hca import Hca
    from harness.connectx.mkeys import Absent
    from harness.connectx.work import Operation
    from harness.wire.bits import Struct

REQUESTER, RECEIVER, RDMA = "requester", "receiver", "rdma"
"""Sides: the local list of a send WQE, the list of a receive WQE, the remote address of an RDMA operation."""

TOKEN_BITS = 24
DEMAND_MOST = 512
"""Pages that one event of the memory scheme asks for at most."""

AGAIN_MOST = 1024
"""Faults of one operation without a byte of progress until it fails: a driver that resumes without
mapping."""

AGAIN_S = 0.001
PAGE = 4096
MTU_MOST = 4096


@dataclass(eq=False)
class Fault:
    """An open fault: `key` is what the resume names it by, `kind` the type it must carry."""

    key: int
    kind: int
    side: str
    operation: Operation
    raised_s: float


class Faults:
    """Open faults of a card and their accounts."""

    def __init__(self, hca: Hca) -> None:
        self._hca = hca
        self.open: dict[int, Fault] = {}
        self._next = 1
        self.raised = self.resumed = self.failed = self.dropped = self.unknown = 0
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
        if operation.again > AGAIN_MOST:
            self._hca.judge.find(
                "fault-loop", f"qp {operation.qp.number:#x}", f"{AGAIN_MOST} resumes without progress"
            )
            return False
        event, sub_type, fault = self._event(operation, side, absent)
        if fault.key in self.open:  # without tokens a queue has one fault of a kind at a time
            self._hca.timers.after(AGAIN_S, operation.qp, lambda: self._hca.requester.wake(operation.qp))
            return True
        self.open[fault.key] = fault
        operation.fault = fault
        if not self._hca.events.post(eqe.PAGE_FAULT, event, sub_type):
            self._hca.judge.find(
                "bad-value", f"key {absent.key.value:#x}", "page fault without an event queue"
            )
            self.drop(operation)
            return False
        self.raised += 1
        name = f"{side} {fault.kind}"
        self.by_kind[name] = self.by_kind.get(name, 0) + 1
        self._hca.log(
            {
                "what": "fault",
                "token": fault.key,
                "side": side,
                "kind": fault.kind,
                "key": absent.key.value,
                "va": absent.va,
                "write": absent.write,
                "done": operation.done,
            }
        )
        return True

    def _token(self) -> int:
        bits = TOKEN_BITS
        while self._next in self.open:
            self._next = self._next + 1 & (1 << bits) - 1 or 1
        token = self._next
        self._next = token + 1 & (1 << bits) - 1 or 1
        return token

    def _event(self, operation: Operation, side: str, absent: Absent) -> tuple[Struct, int, Fault]:
        scheme, now_s = self.scheme, self._hca.clock()
        if scheme == "memory":
            token = self._token()
            return (
                _memory_event(token, absent),
                eqe.PAGE_FAULT_MEMORY,
                Fault(token, 0, side, operation, now_s),
            )
        kind, number, index = _where(operation, side)
        if scheme == "2015":
            fault = Fault(kind << y2015.QPN_BITS | number, kind, side, operation, now_s)
        else:
            fault = Fault(self._token(), kind, side, operation, now_s)
        token = number if scheme == "2015" else fault.key
        packet = min(operation.length - operation.done, MTU_MOST)
        if side == RDMA:
            assert operation.remote is not None
            # The operation's start: the driver itself goes on by bytes_committed.
            # Ref: Linux 7.2 drivers/infiniband/hw/mlx5/odp.c, mlx5_ib_mr_rdma_pfault_handler
            return (
                eqe.PageFaultRdmaEqe.new(
                    bytes_committed=operation.done,
                    r_key=operation.remote.rkey,
                    packet_length=packet,
                    op_length=operation.length,
                    va=operation.remote.address,
                    pf_type=kind,
                    token=token,
                ),
                eqe.PAGE_FAULT_RDMA,
                fault,
            )
        return (
            eqe.PageFaultWqeEqe.new(
                bytes_committed=operation.done,
                wqe_index=index,
                packet_length=packet,
                token=0 if scheme == "2015" else token,
                pf_type=kind,
                wq=number,
            ),
            eqe.PAGE_FAULT_WQE,
            fault,
        )

    def resume(self, key: int, kind: int | None, error: bool) -> None:
        """The driver is done with a fault. An unknown one, or a wrong type, is BAD_RES and a finding."""
        fault = self.open.get(key)
        if fault is None or (kind is not None and kind != fault.kind):
            self.unknown += 1
            self._hca.judge.find(
                "bad-resume", f"fault {key:#x}", "not open" if fault is None else f"type {kind}"
            )
            raise FirmwareError(Status.BAD_RES, why=f"no fault {key:#x}")
        del self.open[key]
        fault.operation.fault = None
        took_s = self._hca.clock() - fault.raised_s
        self._open_s += took_s
        self._longest_s = max(self._longest_s, took_s)
        if error:
            self.failed += 1
        else:
            self.resumed += 1
        self._hca.log({"what": "resume", "token": key, "error": error})
        self._hca.requester.resume(fault.operation, fault.side if error else None)

    def drop(self, operation: Operation) -> None:
        """The operation ends for another reason: its fault is nobody's any more."""
        fault = operation.fault
        if isinstance(fault, Fault) and self.open.get(fault.key) is fault:
            del self.open[fault.key]
            self.dropped += 1
        operation.fault = None

    def clear(self) -> None:
        """A reset: nothing is open any more, and the accounts still balance."""
        self.dropped += len(self.open)
        self.open.clear()

    def counters(self) -> dict[str, int]:
        """The accounts: raised = resumed + failed + dropped + open; how long events waited for their
        resume."""
        answered = self.resumed + self.failed
        return {
            "resume_mean_us": round(1e6 * self._open_s / answered) if answered else 0,
            "resume_max_us": round(1e6 * self._longest_s),
            "raised": self.raised,
            "resumed": self.resumed,
            "failed": self.failed,
            "dropped": self.dropped,
            "open": len(self.open),
            "unknown_resumes": self.unknown,
            **self.by_kind,
        }


def _where(operation: Operation, side: str) -> tuple[int, int, int]:
    """Type, queue number and WQE index of a transport fault."""
    returns = operation.opcode in RETURNS
    if side == REQUESTER:
        kind = eqe.FAULT_REQUESTER_READ_ATOMIC if returns else eqe.FAULT_REQUESTER_SEND_WRITE
        return kind, operation.qp.number, operation.index
    if side == RDMA:
        kind = eqe.FAULT_RDMA_WRITE if operation.opcode in WRITES else eqe.FAULT_RDMA_READ
        return kind, operation.target, 0
    assert operation.receive is not None
    if operation.receive.srqn is not None:
        return eqe.FAULT_RMP, operation.receive.srqn, operation.receive.index
    return eqe.FAULT_RESPONDER, operation.target, operation.receive.index


def _memory_event(token: int, absent: Absent) -> eqe.PageFaultMemoryEqe:
    first = absent.va & ~(PAGE - 1)
    pages = (absent.va + absent.length - first + PAGE - 1) // PAGE
    return eqe.PageFaultMemoryEqe.new(
        last=1,
        token_high=token >> 32,
        token_low=token & 0xFFFFFFFF,
        demand_pages=min(pages, DEMAND_MOST),
        mkey=absent.key.value,
        va=first,
    )
