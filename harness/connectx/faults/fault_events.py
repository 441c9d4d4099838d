"""How a page fault is told to the driver: the event in each scheme's form, and its way to the event queue.

Ref: Linux 7.2 drivers/infiniband/hw/mlx5/odp.c mlx5_ib_eq_pf_process; y2015.py for the first form.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

from harness.connectx.datapath.wqe_parser import (
    RETURNS,
    WRITES,
)
from harness.wire import eqe, y2015

if TYPE_CHECKING:
    from harness.connectx.datapath.wqe_parser import Operation
    from harness.connectx.objects.mkeys import Absent
    from harness.connectx.rules.armed_rule import Armed
    from harness.wire.bits import Struct

REQUESTER, RECEIVER, RDMA = "requester", "receiver", "rdma"
"""Sides: the local list of a send WQE, the list of a receive WQE, the remote address of an RDMA operation."""

MAX_DEMAND = 512
"""Pages that one event of the memory scheme asks for at most."""

PAGE = 4096
MAX_MTU = 4096


@dataclass(eq=False)
class Fault:
    """An open fault: `key` is what the resume names it by, `kind` the type it must carry.

    `resumed` is set when a rule keeps the effect of its resume back.
    """

    key: int
    kind: int
    side: str
    operation: Operation
    raised_s: float
    resumed: bool = False

    def __str__(self) -> str:
        return f"fault {self.key:#x} ({self.side} of qp {self.operation.qp.number:#x})"


class Forged(NamedTuple):
    """An event that a rule invents; `key` is what a resume of it would name, `refuse` whether that is refused."""

    armed: Armed
    event: Struct
    sub_type: int
    key: int
    refuse: bool = False


@dataclass(eq=False)
class PendingEvent:
    """A fault's event on its way out; rules change it. `passed_by`: the next event may go out first."""

    fault: Fault
    operation: Operation
    absent: Absent
    event: Struct
    sub_type: int
    withheld: bool = False
    delay_s: float = 0.0
    passed_by: bool = False
    more: list[Forged] = field(default_factory=list)

    def forge(self, armed: Armed, event: Struct, sub_type: int, key: int, refuse: bool = False) -> None:
        """Send this event after the genuine one."""
        self.more.append(Forged(armed, event, sub_type, key, refuse))


def tell(
    scheme: str, token: int, operation: Operation, side: str, absent: Absent, now_s: float
) -> PendingEvent:
    """The event of a fault; `token` names it unless the scheme is that of 2015, where type and queue do."""
    if scheme == "memory":
        fault = Fault(token, 0, side, operation, now_s)
        return PendingEvent(fault, operation, absent, _memory(token, absent), eqe.PAGE_FAULT_MEMORY)
    kind, number, index = _where(operation, side)
    if scheme == "2015":
        fault = Fault(kind << y2015.QPN_BITS | number, kind, side, operation, now_s)
    else:
        fault = Fault(token, kind, side, operation, now_s)
    if side == RDMA:
        event: Struct = _rdma(operation, kind, number if scheme == "2015" else token)
        return PendingEvent(fault, operation, absent, event, eqe.PAGE_FAULT_RDMA)
    event = eqe.PageFaultWqeEqe.new(
        bytes_committed=operation.done,
        wqe_index=index,
        packet_length=min(operation.length - operation.done, MAX_MTU),
        token=0 if scheme == "2015" else token,
        pf_type=kind,
        wq=number,
    )
    return PendingEvent(fault, operation, absent, event, eqe.PAGE_FAULT_WQE)


def _rdma(operation: Operation, kind: int, token: int) -> eqe.PageFaultRdmaEqe:
    """Address and length are those of the whole operation: the driver adds what is committed itself.

    Ref: Linux 7.2 drivers/infiniband/hw/mlx5/odp.c mlx5_ib_mr_rdma_pfault_handler
    """
    assert operation.remote is not None
    return eqe.PageFaultRdmaEqe.new(
        bytes_committed=operation.done,
        r_key=operation.remote.rkey,
        packet_length=min(operation.length - operation.done, MAX_MTU),
        op_length=operation.length,
        va=operation.remote.address,
        pf_type=kind,
        token=token,
    )


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


def _memory(token: int, absent: Absent) -> eqe.PageFaultMemoryEqe:
    first = absent.va & ~(PAGE - 1)
    pages = (absent.va + absent.length - first + PAGE - 1) // PAGE
    return eqe.PageFaultMemoryEqe.new(
        last=1,
        token_high=token >> 32,
        token_low=token & 0xFFFFFFFF,
        demand_pages=min(pages, MAX_DEMAND),
        mkey=absent.key.value,
        va=first,
    )
