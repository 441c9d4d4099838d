"""Build page-fault EQEs (2015, transport, memory scheme).

Ref: Linux 7.2 drivers/infiniband/hw/mlx5/odp.c mlx5_ib_eq_pf_process; y2015.py for the first form.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

from harness.connectx.objects.mkeys import Absent
from harness.connectx.objects.operation import RDMA, REQUESTER, RETURNS, WRITES, Fault, Operation
from harness.connectx.rules.armed_rule import ArmedRule
from harness.wire import eqe, y2015
from harness.wire.bits import Struct

MAX_DEMAND = 512
"""Limit of pages that one event of the memory scheme asks for."""

PAGE = 4096
MAX_MTU = 4096


class InjectedEvent(NamedTuple):
    """An event that a rule injects; `key` is what a resume of it names, `refuse`: that resume is refused."""

    armed: ArmedRule
    event: Struct
    sub_type: int
    key: int
    refuse: bool = False


@dataclass(eq=False)
class PendingEvent:
    """A fault's event before it is sent; rules change it.

    `overtakable`: a delayed event that is sent as soon as another one is. `injected` events are sent after it.
    """

    fault: Fault
    operation: Operation
    absent: Absent
    event: Struct
    sub_type: int
    withheld: bool = False
    delay_s: float = 0.0
    overtakable: bool = False
    injected: list[InjectedEvent] = field(default_factory=list)

    def inject(self, armed: ArmedRule, event: Struct, sub_type: int, key: int, refuse: bool = False) -> None:
        """Send this event after the genuine one."""
        self.injected.append(InjectedEvent(armed, event, sub_type, key, refuse))


def build(
    scheme: str, token: int, operation: Operation, side: str, absent: Absent, now_s: float
) -> PendingEvent:
    """Build a fault and its event; `token` names it, but in the scheme of 2015 type and queue do."""
    if scheme == "memory":
        fault = Fault(token, 0, side, operation, now_s)
        return PendingEvent(fault, operation, absent, _memory(token, absent), eqe.PAGE_FAULT_MEMORY)
    kind, number, index = _transport(operation, side)
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
    """Build an RDMA event. Address and length are those of the whole operation: the driver adds what is committed.

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


def _transport(operation: Operation, side: str) -> tuple[int, int, int]:
    """Return type, queue number and WQE index of a transport fault."""
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
