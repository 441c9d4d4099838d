"""Queue pairs: their state machine, rings and doorbell records; `requester.py` runs their work.

Ref: Linux 7.2 drivers/infiniband/hw/mlx5/qp.c for what each transition carries; include/linux/mlx5/qp.h for
numbers.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, ClassVar

from harness.connectx.device import DeviceState
from harness.connectx.object_table import FwObject
from harness.connectx.objects.mkeys import User
from harness.connectx.objects.queues import Ring
from harness.connectx.status import FirmwareError, Status
from harness.wire import wqe
from harness.wire.ifc import View

RST, INIT, RTR, RTS, SQER, SQD, ERR = 0, 1, 2, 3, 4, 5, 6
"""States. Ref: Linux 7.2 include/linux/mlx5/qp.h, enum mlx5_qp_state."""

RC, UC, UD, XRC, QP0, QP1, REG_UMR = 0, 1, 2, 3, 7, 8, 12
"""Services, `qpc.st`. Ref: Linux 7.2 include/linux/mlx5/qp.h, MLX5_QP_ST_*."""

OWN_RQ, SHARED_RQ = 0, 1
"""`qpc.rq_type`. Ref: Linux 7.2 include/linux/mlx5/qp.h, MLX5_NON_ZERO_RQ and its neighbours."""

TRANSITIONS: dict[str, tuple[tuple[int, ...], int, tuple[str, ...]]] = {
    "RST2INIT_QP": (
        (RST,),
        INIT,
        (
            "primary_address_path.pkey_index",
            "primary_address_path.vhca_port_num",
            "counter_set_id",
            "pm_state",
            "q_key",
            "rre",
            "rwe",
            "rae",
            "atomic_mode",
        ),
    ),
    "INIT2INIT_QP": ((INIT,), INIT, ("primary_address_path.pkey_index",)),
    "INIT2RTR_QP": (
        (INIT,),
        RTR,
        (
            "mtu",
            "log_msg_max",
            "remote_qpn",
            "next_rcv_psn",
            "log_rra_max",
            "min_rnr_nak",
            "primary_address_path",
        ),
    ),
    "RTR2RTS_QP": (
        (RTR,),
        RTS,
        (
            "next_send_psn",
            "retry_count",
            "rnr_retry",
            "log_sra_max",
            "log_ack_req_freq",
            "primary_address_path.ack_timeout",
        ),
    ),
    "RTS2RTS_QP": ((RTS,), RTS, ()),
    "SQERR2RTS_QP": ((SQER,), RTS, ()),
    "SQD_RTS_QP": ((SQD,), RTS, ()),
    "2ERR_QP": ((RST, INIT, RTR, RTS, SQER, SQD, ERR), ERR, ()),
    "2RST_QP": ((RST, INIT, RTR, RTS, SQER, SQD, ERR), RST, ()),
}
"""By command: states it may start from, state it ends in, fields it always carries."""

OPTIONAL: dict[int, tuple[str, ...]] = {
    0: ("secondary_address_path",),
    1: ("rre",),
    2: ("rae", "atomic_mode"),
    3: ("rwe",),
    4: ("primary_address_path.pkey_index",),
    5: ("q_key",),
    6: ("min_rnr_nak",),
    7: ("primary_address_path",),
    8: ("log_sra_max",),
    9: ("log_rra_max",),
    10: ("pm_state",),
    12: ("retry_count",),
    13: ("rnr_retry",),
    14: ("primary_address_path.ack_timeout",),
    16: ("primary_address_path.vhca_port_num",),
    18: ("srqn_rmpn_xrqn",),
    19: ("cqn_rcv",),
    25: ("counter_set_id",),
}
"""Fields that a bit of `opt_param_mask` adds. Ref: Linux 7.2 include/linux/mlx5/qp.h, enum mlx5_qp_optpar."""


NO_USER = User(None, 0, False)


@dataclass(eq=False)
class QueuePair(FwObject):
    """A QP. Counters run freely; the send queue counts blocks of 64 bytes, the receive queue entries.

    `context` is its `qpc`, kept current for queries; `refresh` caches what every WQE needs of it.
    The driver's UMR QP has no PD: it may use any key. The reserved one is for all QPs of the kernel (`rlky`). Ref:
    Linux 7.2 drivers/infiniband/hw/mlx5/qp.c create_kernel_qp.
    `busy` is the operation in progress on its send queue. `taking` is the operation of another QP whose message has
    taken a receive here that is not completed; that operation may have ended early.
    """

    kind: ClassVar[str] = "qp"
    context: View
    ring: Ring
    state: int = RST
    service: int = RC
    pd: int | None = None
    user: User = NO_USER
    user_index: int = 0
    send_cq: int = 0
    receive_cq: int = 0
    srq: int | None = None
    remote: int = 0
    record: int = 0
    send_blocks: int = 0
    receive_count: int = 0
    receive_stride: int = 0
    send_at: int = 0
    sent: int = 0
    received: int = 0
    busy: Any = None
    taking: Any = None
    established: bool = False
    dead: bool = False
    flush_due_s: float = 0.0

    def refresh(self) -> None:
        """Cache the fields of the context that are read often."""
        get = self.context.__getitem__
        self.service, self.user_index = get("st"), get("user_index")
        self.pd = None if self.service == REG_UMR else get("pd")
        self.user = User(self.pd, self.number, self.pd is None or bool(get("rlky")))
        self.send_cq, self.receive_cq = get("cqn_snd"), get("cqn_rcv")
        self.remote, self.record = get("remote_qpn"), get("dbr_addr")
        rq_type = get("rq_type")
        self.srq = get("srqn_rmpn_xrqn") if rq_type == SHARED_RQ and get("srqn_rmpn_xrqn") else None
        self.receive_count = 1 << get("log_rq_size") if rq_type == OWN_RQ else 0
        self.receive_stride = 1 << (get("log_rq_stride") + 4)
        self.send_blocks = 0 if get("no_sq") else 1 << get("log_sq_size")
        self.send_at = self.receive_count * self.receive_stride

    def refers(self) -> Iterable[tuple[str, int]]:
        """Name its PD, queues, UAR page."""
        needs = []
        if self.send_blocks or self.receive_count:
            needs.append(("uar", self.context["uar_page"]))
        if self.pd is not None:
            needs.append(("pd", self.pd))
        if self.send_blocks:
            needs.append(("cq", self.send_cq))
        if self.receive_count or self.srq is not None:
            needs.append(("cq", self.receive_cq))
        if self.srq is not None:
            needs.append(("srq", self.srq))
        if self.service == XRC and self.context["xrcd"]:
            needs.append(("xrcd", self.context["xrcd"]))
        return needs

    @property
    def ring_bytes(self) -> int:
        """Bytes of both work queues in memory, receive queue first."""
        return self.send_at + self.send_blocks * wqe.BLOCK


def ring_size(context: View) -> int:
    """Return the bytes of the work queues that a context describes."""
    probe = QueuePair(0, context, Ring((), 12, 0, 0))
    probe.refresh()
    return probe.ring_bytes


class QueuePairs:
    """State transitions of QPs, and access to their rings."""

    def __init__(self, device: DeviceState) -> None:
        self._device = device

    def modify(self, qp: QueuePair, command: str, change: View, optional: int) -> None:
        """Do one transition with what its context carries; the requester has to follow it (`entered`).

        A transition that the state does not allow is a finding and BAD_QP_STATE.
        """
        allowed, target, always = TRANSITIONS[command]
        if qp.state not in allowed:
            self._device.findings.report(
                "bad-qp-transition", f"qp {qp.number:#x}", f"{command} in state {qp.state}"
            )
            raise FirmwareError(Status.BAD_QP_STATE, why=f"{command} in state {qp.state}")
        names = list(always)
        for bit, more in OPTIONAL.items():
            if optional >> bit & 1:
                names += more
        for name in names:
            qp.context[name] = change[name]
        qp.context["state"] = target
        qp.refresh()
        qp.state = target
        if target == RST:
            qp.sent = qp.received = 0
            qp.established = qp.dead = False
            qp.flush_due_s = 0.0

    def producer(self, qp: QueuePair, word: int) -> int:
        """Return a counter of the doorbell record, 16 bits: word 0 receive, word 1 send."""
        return int.from_bytes(self._device.memory.read(qp.record + 4 * word, 4), "big") & 0xFFFF

    def blocks(self, qp: QueuePair, first: int, count: int) -> bytes:
        """Return `count` bytes of the send queue from block `first` on; it wraps."""
        memory, block = self._device.memory, first & (qp.send_blocks - 1)
        room = (qp.send_blocks - block) * wqe.BLOCK
        work = qp.ring.read(memory, qp.send_at + block * wqe.BLOCK, min(count, room))
        return work if count <= room else work + qp.ring.read(memory, qp.send_at, count - room)
