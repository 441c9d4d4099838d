"""Runs send queues: fetches work, executes it, completes it.

Ref: Linux 7.2 include/linux/mlx5/qp.h for the segments; drivers/infiniband/hw/mlx5/umr.c for UMR.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

from harness.connectx.mkeys import Refused
from harness.connectx.qps import ERR, RTS, SQER, QueuePair
from harness.wire import cqe, wqe

if TYPE_CHECKING:
    from harness.connectx.hca import Hca
    from harness.connectx.queues import CompletionQueue

INLINE_UMR_LIST = 16 + 48 + 64
"""Where a UMR's data segment or inline list begins: behind control, UMR control and key segment."""


class Requester:
    """The send queues of a card, run one after the other until none can go on."""

    def __init__(self, hca: Hca) -> None:
        self._hca = hca
        self._ready: deque[QueuePair] = deque()

    def doorbell(self, number: int) -> None:
        """A send queue's producer moved."""
        qp = self._hca.judge.table("qp").get(number)
        if qp is None:
            self._hca.judge.missing("qp", number, "doorbell")
            return
        self.wake(qp)

    def wake(self, qp: QueuePair) -> None:
        """Look at this QP at the next `run`."""
        if qp not in self._ready:
            self._ready.append(qp)

    def forget(self, qp: QueuePair) -> None:
        """The QP is reset or destroyed."""
        if qp in self._ready:
            self._ready.remove(qp)
        qp.busy = None
        qp.parked.clear()

    def run(self) -> None:
        """Execute until nothing more can be done now."""
        while self._ready:
            qp = self._ready.popleft()
            if qp.send_blocks and qp.state in (RTS, SQER, ERR):
                self._drain(qp)

    def tick(self) -> float | None:
        """Run what is due; seconds until the next, None without any."""
        self.run()
        return None

    def _drain(self, qp: QueuePair) -> None:
        producer = self._hca.qps.producer(qp, 1)
        outstanding = (producer - qp.sent) & 0xFFFF
        if outstanding > qp.send_blocks:
            detail = f"{outstanding} blocks posted, the queue has {qp.send_blocks}"
            self._hca.judge.find("bad-value", f"qp {qp.number:#x}", detail)
            return
        while qp.sent != producer:
            control = wqe.Control(self._hca.qps.blocks(qp, qp.sent, wqe.SEGMENT))
            work = self._hca.qps.blocks(qp, qp.sent, max(control.ds, 1) * wqe.SEGMENT)
            if qp.state in (SQER, ERR):
                self.complete(qp, control, cqe.FLUSH)
            else:
                self._execute(qp, control, work)
            qp.sent = (qp.sent + (len(work) + wqe.BLOCK - 1) // wqe.BLOCK) & 0xFFFF

    def _execute(self, qp: QueuePair, control: wqe.Control, work: bytes) -> None:
        syndrome = 0
        try:
            if control.opcode == wqe.UMR:
                self._umr(qp, control, work)
            elif control.opcode != wqe.NOP:
                raise Refused(cqe.LOCAL_QP_OPERATION, f"opcode {control.opcode:#x}")
        except Refused as refusal:
            self._hca.log({"what": "refused", "qpn": qp.number, "why": refusal.why})
            syndrome = refusal.syndrome
        self.complete(qp, control, syndrome)

    def _umr(self, qp: QueuePair, control: wqe.Control, work: bytes) -> None:
        if len(work) < INLINE_UMR_LIST:
            raise Refused(cqe.LOCAL_QP_OPERATION, "UMR without a key segment")
        umr = wqe.UmrControl(work, at=16)
        segment = self._hca.layouts["mkc"].view(work, 64)
        size = umr.xlt_octowords * 16
        listed = b""
        if umr.inline:
            listed = work[INLINE_UMR_LIST : INLINE_UMR_LIST + size]
        elif size:
            data = wqe.Data(work, at=INLINE_UMR_LIST)
            spans, absent = self._hca.keys.access(
                data.lkey, data.address, size, qp.pd, "lr", cqe.LOCAL_PROTECTION
            )
            if absent is not None:
                raise Refused(cqe.LOCAL_PROTECTION, "UMR list on an absent page")
            listed = b"".join(self._hca.memory.read(span.address or 0, span.length) for span in spans)
        self._hca.log(
            {"what": "umr", "key": control.general_id, "flags": umr.flags, "octowords": umr.xlt_octowords}
        )
        self._hca.keys.umr(control.general_id, umr, segment, listed)

    def complete(self, qp: QueuePair, control: wqe.Control, syndrome: int) -> None:
        """The CQE of a send WQE: wanted, or with a syndrome, after which the QP is broken."""
        queue: CompletionQueue | None = self._hca.judge.table("cq").get(qp.send_cq)
        if queue is None:
            self._hca.judge.missing("cq", qp.send_cq, f"qp {qp.number:#x}")
            return
        if syndrome:
            error = cqe.ErrorCqe.new(
                srqn_uidx=qp.user_index,
                syndrome=syndrome,
                wqe_opcode=control.opcode,
                qpn=qp.number,
                wqe_counter=qp.sent,
                opcode=cqe.REQUESTER_ERROR,
            )
            self._hca.completions.push(queue, error)
            if qp.state == RTS:
                self._hca.qps.fail(qp)
        elif control.completion & wqe.COMPLETION_ALWAYS:
            entry = cqe.Cqe.new(
                srqn_uidx=qp.user_index,
                wqe_opcode=control.opcode,
                qpn=qp.number,
                wqe_counter=qp.sent,
                opcode=cqe.REQUESTER,
                timestamp=self._hca.ticks(),
            )
            self._hca.completions.push(queue, entry)
