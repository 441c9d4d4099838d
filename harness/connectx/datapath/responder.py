"""Responder: find the target QP of a message, take its receive WQE, complete it, flush a broken QP.

Ref: Linux 7.2 drivers/infiniband/hw/mlx5/cq.c handle_responder; rdma-core 56 providers/mlx5/cq.c.
"""

from __future__ import annotations

from harness.connectx.datapath.run_queue import RunQueue
from harness.connectx.datapath.wqe_parser import parse_receive
from harness.connectx.device import DeviceState
from harness.connectx.objects.mkeys import User
from harness.connectx.objects.operation import Operation, Receive
from harness.connectx.objects.qps import (
    ERR,
    QP0,
    QP1,
    RC,
    RTR,
    RTS,
    SQD,
    SQER,
    UC,
    UD,
    XRC,
    QueuePair,
    QueuePairs,
)
from harness.connectx.objects.queues import (
    CompletionQueue,
    Completions,
    Events,
    Ring,
)
from harness.connectx.objects.srqs import SharedQueue
from harness.wire import cqe, eqe, wqe

FLUSH_EVERY_S = 0.005
"""Period in which a broken QP is flushed again: receives are posted without a doorbell."""

RECEIVING = (RTR, RTS, SQD, SQER)
"""States in which a receive queue works: an error of the send queue alone does not stop it.

Ref: InfiniBand architecture 1.4, 10.3.1.
"""

CQE_OPCODES = {
    wqe.SEND: cqe.RECEIVE_SEND,
    wqe.SEND_IMM: cqe.RECEIVE_SEND_IMM,
    wqe.SEND_INVALIDATE: cqe.RECEIVE_SEND_INV,
    wqe.RDMA_WRITE_IMM: cqe.RECEIVE_WRITE_IMM,
}
WELL_KNOWN = {0: QP0, 1: QP1}
GRH_PRESENT = 1 << 4
"""Bits of the CQE's flags. Ref: Linux 7.2 drivers/infiniband/hw/mlx5/cq.c handle_responder: flags_rqpn >> 28 &
3."""


class Responder:
    """Receive queues of a card."""

    def __init__(
        self,
        device: DeviceState,
        events: Events,
        completions: Completions,
        qps: QueuePairs,
        run_queue: RunQueue,
    ) -> None:
        self._device, self._events, self._completions = device, events, completions
        self._qps, self._run_queue = qps, run_queue

    def target(self, operation: Operation) -> QueuePair | None:
        """Return the QP an operation goes to, None when there is none that would receive it."""
        qp, vector = operation.qp, operation.vector
        table = self._device.objects.table("qp")
        if vector is None:
            target: QueuePair | None = table.get(qp.remote)
            if target is None or target.service != qp.service or qp.service not in (RC, UC, XRC):
                return None
        else:
            target = self._datagram_target(vector)
            if target is None or target.context["q_key"] != self._qkey(qp, vector):
                return None
        return target if target.state in RECEIVING else None

    def _datagram_target(self, vector: wqe.AddressVector) -> QueuePair | None:
        table = self._device.objects.table("qp")
        if vector.dqpn not in WELL_KNOWN:
            target: QueuePair | None = table.get(vector.dqpn)
            return target if target is not None and target.service in (UD, QP0, QP1) else None
        service = WELL_KNOWN[vector.dqpn]
        return next((qp for qp in table.values() if qp.service == service), None)

    @staticmethod
    def _qkey(qp: QueuePair, vector: wqe.AddressVector) -> int:
        """Return the Q_Key of a datagram: one with its top bit set stands for the sender's own."""
        own: int = qp.context["q_key"]
        return own if vector.qkey >> 31 else vector.qkey

    def receive_user(self, receive: Receive, target: QueuePair) -> User:
        """Return the user of a receive WQE's keys: the PD is the SRQ's if it came from one.

        An SRQ's context does not say whether the reserved key may be used.
        """
        if receive.srqn is not None:
            queue: SharedQueue | None = self._device.objects.table("srq").get(receive.srqn)
            if queue is not None:
                return User(queue.pd, target.number, reserved=True)
        return target.user

    def remote_user(self, operation: Operation, target: QueuePair) -> User:
        """Return the user of remote keys: XRC's PD is that of the SRQ a message names.

        An XRC target QP of mlx5_ib has a PD of the driver's own. Ref: Linux 7.2
        drivers/infiniband/hw/mlx5/qp.c.
        """
        if operation.xrc_srqn is not None:
            queue: SharedQueue | None = self._device.objects.table("srq").get(operation.xrc_srqn)
            if queue is not None:
                return target.user._replace(pd=queue.pd)
        return target.user

    @staticmethod
    def occupied(target: QueuePair) -> bool:
        """Return whether another message is arriving: receives complete in the order in which they are taken."""
        return target.taking is not None and target.taking.qp.busy is target.taking

    def take(self, target: QueuePair, operation: Operation) -> Receive | None:
        """Return a receive WQE for a message, None when none is posted.

        One that was taken for a message which never ended is used again.
        """
        srqn = operation.xrc_srqn if operation.qp.service == XRC else target.srq
        begun = target.taking.receive if target.taking is not None else None
        if begun is not None and begun.srqn == srqn:
            target.taking.receive = None
            taken: Receive | None = begun
        else:
            self.drop(target, flushed=True)
            taken = self._take_own(target) if srqn is None else self._take_by_number(srqn, target)
        target.taking = operation if taken is not None else None
        return taken

    def _take_by_number(self, srqn: int, target: QueuePair) -> Receive | None:
        queue: SharedQueue | None = self._device.objects.table("srq").get(srqn)
        if queue is None:
            self._device.objects.missing("srq", srqn, f"qp {target.number:#x}")
            return None
        return self._take_shared(queue)

    def _take_own(self, target: QueuePair) -> Receive | None:
        if not target.receive_count:
            return None
        posted = self._qps.producer(target, 0)
        waiting = (posted - target.received) & 0xFFFF
        if waiting > target.receive_count:
            detail = f"{waiting} receives posted, the queue has {target.receive_count}"
            self._device.findings.report("bad-value", f"qp {target.number:#x}", detail)
            return None
        if not waiting:
            return None
        index = target.received & (target.receive_count - 1)
        work = self._entry(target.ring, index * target.receive_stride, target.receive_stride)
        taken = parse_receive(work, target.received & 0xFFFF, None)
        target.received = target.received + 1 & 0xFFFF
        return taken

    def _take_shared(self, queue: SharedQueue) -> Receive | None:
        posted = int.from_bytes(self._device.memory.read(queue.record, 4), "big") & 0xFFFF
        available = (posted - queue.taken) & 0xFFFF
        if not available:
            return None
        index = queue.head & ((1 << queue.log_size) - 1)
        work = self._entry(queue.ring, index * queue.stride, queue.stride)
        queue.head = wqe.SrqNext(work).next_wqe_index
        queue.taken = queue.taken + 1 & 0xFFFF
        if queue.limit and available - 1 < queue.limit:
            queue.limit = 0
            event = eqe.QpSrqEqe.new(qp_srq_n=queue.number)
            self._events.post(eqe.SRQ_LIMIT, event)
        return parse_receive(work[wqe.SEGMENT :], index, queue.number)

    def _entry(self, ring: Ring, offset: int, size: int) -> bytes:
        """Read a WQE of a ring, which may cross a page."""
        return ring.read(self._device.memory, offset, size)

    def _queue(self, target: QueuePair, receive: Receive) -> tuple[CompletionQueue | None, int]:
        """Return the CQ of a receive and the user index of its CQE: an XRC SRQ has its own."""
        if receive.srqn is not None:
            shared: SharedQueue | None = self._device.objects.table("srq").get(receive.srqn)
            if shared is not None and shared.cqn is not None:
                return self._device.objects.table("cq").get(shared.cqn), shared.user_index
        return self._device.objects.table("cq").get(target.receive_cq), target.user_index

    def complete(self, target: QueuePair, operation: Operation, extra: int) -> None:
        """Write the CQE of a receive that is done; `extra` bytes precede the data (a datagram's GRH)."""
        receive = operation.receive
        if receive is None:
            return
        target.taking = None
        queue, index = self._queue(target, receive)
        if queue is None:
            self._device.objects.missing("cq", target.receive_cq, f"qp {target.number:#x}")
            return
        control, vector = operation.control, operation.vector
        entry = cqe.Cqe.new(
            opcode=CQE_OPCODES[operation.opcode],
            srqn_uidx=index,
            qpn=target.number,
            wqe_counter=receive.index,
            byte_count=operation.length + extra,
            immediate=control.general_id,
            rqpn=operation.qp.number if vector is not None else 0,
            rx_flags=GRH_PRESENT if vector is not None and vector.grh else 0,
            slid=1 if vector is not None else 0,
            timestamp=self._device.ticks(),
        )
        self._completions.push(queue, entry, solicited=bool(control.solicited))

    def fail(self, target: QueuePair, receive: Receive | None, syndrome: int) -> None:
        """Break the responder: an error CQE for its current receive, and the posted ones are flushed."""
        if receive is not None and syndrome:
            self.error(target, receive, syndrome)
        if syndrome or receive is None:
            self.fail_queue(target, receiving=True)

    def fail_queue(self, qp: QueuePair, receiving: bool = False) -> None:
        """Put a QP into an error state and flush it. A datagram queue that cannot send still receives."""
        if qp.state == ERR:
            return
        qp.state = SQER if qp.service == UD and not receiving else ERR
        qp.context["state"] = qp.state
        self._run_queue.wake(qp)
        if qp.state == ERR:
            self.enter_error(qp)

    def drop(self, target: QueuePair, flushed: bool) -> None:
        """End a message that is arriving: its receive is flushed, or forgotten with its queue.

        A sender that is still at it starts the message again.
        """
        operation: Operation | None = target.taking
        target.taking = None
        if operation is None or operation.receive is None:
            return
        receive, operation.receive, operation.done = operation.receive, None, 0
        if flushed:
            self.error(target, receive, cqe.FLUSH)

    def error(self, target: QueuePair, receive: Receive, syndrome: int) -> None:
        """Write the error CQE of a receive."""
        target.taking = None
        queue, index = self._queue(target, receive)
        if queue is not None:
            entry = cqe.ErrorCqe.new(
                opcode=cqe.RESPONDER_ERROR,
                srqn_uidx=index,
                syndrome=syndrome,
                qpn=target.number,
                wqe_counter=receive.index,
            )
            self._completions.push(queue, entry)

    def flush(self, target: QueuePair) -> None:
        """Flush the receives that are posted to a broken QP, now and every FLUSH_EVERY_S."""
        if target.state != ERR or not target.receive_count or target.record == 0:
            return
        while (receive := self._take_own(target)) is not None:
            self.error(target, receive, cqe.FLUSH)
        self._device.timers.after(FLUSH_EVERY_S, ("flush", target), lambda: self.flush(target))

    def enter_error(self, target: QueuePair) -> None:
        """Flush a QP that has entered the error state."""
        self.drop(target, flushed=True)
        self.flush(target)
        if target.srq is not None and target.service != XRC:
            event = eqe.QpSrqEqe.new(qp_srq_n=target.number)
            self._events.post(eqe.SRQ_LAST_WQE, event)

    def establish(self, target: QueuePair) -> None:
        """Report communication established at the first message of a QP in RTR."""
        if target.state == RTR and not target.established:
            target.established = True
            self._events.post(eqe.COMM_EST, eqe.QpSrqEqe.new(qp_srq_n=target.number))
