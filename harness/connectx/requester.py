"""Runs send queues: fetches work, moves it as far as it goes, completes it, comes back to what had to wait.

One operation at a time per QP (`qp.busy`): while it waits for a page, a receive or a peer, the QP waits.
Ref: Linux 7.2 include/linux/mlx5/qp.h; InfiniBand architecture 1.4, 9.7 (retries, RNR).
"""

from __future__ import annotations

from collections import Counter, deque
from typing import TYPE_CHECKING, Any

from harness.connectx.faults import RDMA, REQUESTER
from harness.connectx.mkeys import Refused
from harness.connectx.qps import ERR, RC, RTS, SQER, UC, XRC, QueuePair
from harness.connectx.transfer import RemoteRefused, Stop
from harness.connectx.umr import run_umr
from harness.connectx.work import ATOMICS, GRH, REMOTE, RETURNS, TAKES_RECEIVE, WRITES, Operation, parse
from harness.wire import cqe, eqe, wqe

if TYPE_CHECKING:
    from harness.connectx.hca import Hca
    from harness.connectx.queues import CompletionQueue

FOREVER = 7
"""Of rnr_retry: never give up. Ref: InfiniBand architecture 1.4, 9.7.5.2.8."""

RNR_MS = (
    (655.36, 0.01, 0.02, 0.03, 0.04, 0.06, 0.08, 0.12, 0.16, 0.24, 0.32, 0.48, 0.64, 0.96, 1.28, 1.92)
    + (2.56, 3.84, 5.12, 7.68, 10.24, 15.36, 20.48, 30.72, 40.96, 61.44, 81.92, 122.88, 163.84, 245.76)
    + (327.68, 491.52)
)
"""RNR timer values. Ref: InfiniBand architecture 1.4, table 45."""

RNR_LEAST_S = 0.0005
ACK_LEAST_S = 0.001
NEED = {True: "rwe", False: "rre"}


class Requester:
    """The send queues of a card, run one after the other until none can go on."""

    def __init__(self, hca: Hca) -> None:
        self._hca = hca
        self._ready: deque[QueuePair] = deque()
        self._counts: Counter[str] = Counter()

    # -- who is looked at

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
        """The QP is reset or destroyed: nothing of it is left to do, and who was sending to it tries
        again."""
        if qp in self._ready:
            self._ready.remove(qp)
        self.stop(qp)
        self._hca.timers.cancel(("flush", qp))
        self._hca.timers.cancel(qp)
        qp.busy = None

    def stop(self, qp: QueuePair) -> None:
        """The QP cannot receive or send any more: faults on its behalf are nobody's."""
        if qp.busy is not None:
            self._hca.faults.drop(qp.busy)
            self.wake(qp)
        for fault in list(self._hca.faults.open.values()):
            if fault.operation.target == qp.number and fault.side != REQUESTER:
                self._hca.faults.drop(fault.operation)
                self.wake(fault.operation.qp)

    def resume(self, operation: Operation, failed: str | None) -> None:
        """A fault of this operation is resolved; `failed` is the side on which it could not be."""
        qp = operation.qp
        if qp.busy is not operation:
            return
        if failed == REQUESTER:
            self._finish(operation, cqe.LOCAL_PROTECTION)
        elif failed is not None:
            target = self._hca.judge.table("qp").get(operation.target)
            syndrome = cqe.REMOTE_ACCESS if failed == RDMA else cqe.REMOTE_OPERATION
            self._refused(
                operation, target, RemoteRefused(syndrome, cqe.LOCAL_PROTECTION, "page fault failed")
            )
        self.wake(qp)

    def run(self) -> None:
        """Execute until nothing more can be done now."""
        while self._ready:
            qp = self._ready.popleft()
            if qp.send_blocks and qp.state in (RTS, SQER, ERR):
                self._drain(qp)

    def counters(self) -> dict[str, int]:
        """WQEs done by opcode, and how often something had to wait."""
        return dict(self._counts)

    # -- one queue

    def _drain(self, qp: QueuePair) -> None:
        while True:
            if qp.busy is not None:
                if qp.state in (SQER, ERR):
                    self._hca.faults.drop(qp.busy)
                    self._hca.timers.cancel(qp)
                    self._finish(qp.busy, cqe.FLUSH)
                elif qp.busy.fault is not None or not self._advance(qp.busy):
                    return
            elif not self._fetch(qp):
                return

    def _fetch(self, qp: QueuePair) -> bool:
        """Take the next WQE; False when there is none."""
        producer = self._hca.qps.producer(qp, 1)
        outstanding = (producer - qp.sent) & 0xFFFF
        if outstanding > qp.send_blocks:
            detail = f"{outstanding} blocks posted, the queue has {qp.send_blocks}"
            self._hca.judge.find("bad-value", f"qp {qp.number:#x}", detail)
            return False
        if not outstanding:
            return False
        control = wqe.Control(self._hca.qps.blocks(qp, qp.sent, wqe.SEGMENT))
        work = self._hca.qps.blocks(qp, qp.sent, max(control.ds, 1) * wqe.SEGMENT)
        blocks = (len(work) + wqe.BLOCK - 1) // wqe.BLOCK
        operation = Operation(qp, control, qp.sent, blocks)
        if qp.state in (SQER, ERR):
            self._finish(operation, cqe.FLUSH)
            return True
        try:
            if control.opcode == wqe.UMR:
                run_umr(self._hca, qp, control, work)
            elif control.opcode in TAKES_RECEIVE | REMOTE:
                qp.busy = parse(qp, control, work, blocks)
                return True
            elif control.opcode != wqe.NOP:
                raise Refused(cqe.LOCAL_QP_OPERATION, f"opcode {control.opcode:#x}")
            self._finish(operation, 0)
        except Refused as refusal:
            self._note(operation, refusal.why)
            self._finish(operation, refusal.syndrome)
        return True

    def _advance(self, operation: Operation) -> bool:
        """Take an operation as far as it goes; False when it must wait."""
        qp = operation.qp
        target = self._hca.responder.target(operation)
        if target is None:
            return self._nobody(operation)
        operation.target = target.number
        extra = GRH if operation.vector is not None else 0
        try:
            self._permitted(operation, target)
            self._hca.responder.heard(target)
            if operation.opcode in TAKES_RECEIVE and operation.receive is None:
                operation.receive = self._hca.responder.take(target, operation)
                if operation.receive is None:
                    return self._not_ready(operation, target)
                self._fits(operation, extra)
            stop = self._hca.transfer.advance(operation, target)
        except Refused as refusal:
            self._note(operation, refusal.why)
            self._finish(operation, refusal.syndrome)
            return True
        except RemoteRefused as refusal:
            self._note(operation, refusal.why)
            self._refused(operation, target, refusal)
            return True
        if stop is not None:
            return self._absent(operation, target, stop)
        self._hca.responder.complete(target, operation, extra)
        if operation.opcode == wqe.SEND_INVALIDATE:
            self._hca.keys.invalidate(operation.control.general_id, target.pd)
        self._finish(operation, 0)
        return qp.busy is None

    def _permitted(self, operation: Operation, target: QueuePair) -> None:
        """Whether the responder allows such operations at all."""
        if operation.opcode in ATOMICS:
            need = "rae"
        elif operation.remote is not None:
            need = NEED[operation.opcode in WRITES]
        else:
            return
        if not target.context[need]:
            raise RemoteRefused(cqe.REMOTE_INVALID_REQUEST, 0, f"qp {target.number:#x} lacks {need}")
        if operation.qp.service == UC and operation.opcode in RETURNS:
            raise Refused(cqe.LOCAL_QP_OPERATION, "UC has no reads and atomics")

    def _fits(self, operation: Operation, extra: int) -> None:
        """A datagram's first bytes are for the GRH; what is longer than the receive is refused."""
        receive = operation.receive
        assert receive is not None
        if operation.opcode == wqe.RDMA_WRITE_IMM:
            return
        if receive.room < operation.length + extra:
            why = f"{operation.length + extra} bytes for a receive of {receive.room}"
            raise RemoteRefused(cqe.REMOTE_INVALID_REQUEST, cqe.LOCAL_LENGTH, why)
        if extra:
            receive.skip(extra)

    # -- what an operation may have to wait for, or fail of

    def _nobody(self, operation: Operation) -> bool:
        """No QP hears it. Unreliable services do not notice; reliable ones try again, then give up."""
        qp = operation.qp
        if qp.service not in (RC, XRC):
            self._finish(operation, 0)
            return True
        timeout, most = qp.context["primary_address_path.ack_timeout"], qp.context["retry_count"]
        operation.tries += 1
        if timeout and operation.tries > most:
            self._finish(operation, cqe.RETRY_EXCEEDED)
            return True
        self._counts["retries"] += 1
        delay_s = max(4.096e-6 * (1 << timeout), ACK_LEAST_S) if timeout else 0.1
        self._hca.timers.after(delay_s, qp, lambda: self.wake(qp))
        return False

    def _not_ready(self, operation: Operation, target: QueuePair) -> bool:
        """No receive is posted: RNR. Posting one rings no doorbell, so a timer looks again."""
        qp = operation.qp
        if qp.service not in (RC, XRC):
            self._finish(operation, 0)
            return True
        operation.rnr_tries += 1
        most = qp.context["rnr_retry"]
        if most != FOREVER and operation.rnr_tries > most:
            self._finish(operation, cqe.RNR_RETRY_EXCEEDED)
            return True
        self._counts["rnr"] += 1
        delay_s = max(RNR_MS[target.context["min_rnr_nak"]] / 1000, RNR_LEAST_S)
        self._hca.timers.after(delay_s, qp, lambda: self.wake(qp))
        return False

    def _absent(self, operation: Operation, target: QueuePair, stop: Stop) -> bool:
        """A page is absent: park, unless the service drops such messages or nobody resolves it."""
        if operation.qp.service not in (RC, XRC) and stop.side == RDMA:
            self._finish(operation, 0)
            return True
        if self._hca.faults.park(operation, stop.side, stop.absent):
            self._counts["parked"] += 1
            return False
        if stop.side == REQUESTER:
            self._finish(operation, cqe.LOCAL_PROTECTION)
        else:
            refusal = RemoteRefused(cqe.REMOTE_OPERATION, cqe.LOCAL_PROTECTION, "page fault is not resolved")
            self._refused(operation, target, refusal)
        return True

    def _refused(self, operation: Operation, target: QueuePair | None, refusal: RemoteRefused) -> None:
        """The responder's side refuses: it breaks too, with a completion or an event; UC and UD do not
        tell."""
        reliable = operation.qp.service in (RC, XRC)
        if target is not None and reliable:
            if operation.receive is not None and refusal.local:
                self._hca.responder.fail(target, operation.receive, refusal.local)
            else:
                kind = (
                    eqe.WQ_ACCESS_ERROR if refusal.syndrome == cqe.REMOTE_ACCESS else eqe.WQ_INVALID_REQUEST
                )
                self._hca.events.post(kind, eqe.QpSrqEqe.new(qp_srq_n=target.number))
                self._hca.responder.fail(target, None, 0)
        self._finish(operation, refusal.syndrome if reliable else 0)

    def _note(self, operation: Operation, why: str) -> None:
        self._hca.log({"what": "refused", "qpn": operation.qp.number, "why": why})

    # -- the end

    def _finish(self, operation: Operation, syndrome: int) -> None:
        """The CQE of a send WQE, if wanted or failed; a failed one breaks the QP. The queue moves on."""
        qp = operation.qp
        qp.busy = None
        qp.sent = (operation.index + operation.blocks) & 0xFFFF
        self._counts[f"opcode {operation.opcode:#x}"] += 1
        queue: CompletionQueue | None = self._hca.judge.table("cq").get(qp.send_cq)
        if queue is None:
            self._hca.judge.missing("cq", qp.send_cq, f"qp {qp.number:#x}")
            return
        values: dict[str, Any] = {
            "srqn_uidx": qp.user_index,
            "wqe_opcode": operation.opcode,
            "qpn": qp.number,
            "wqe_counter": operation.index,
        }
        if syndrome:
            error = cqe.ErrorCqe.new(opcode=cqe.REQUESTER_ERROR, syndrome=syndrome, **values)
            self._hca.completions.push(queue, error)
            if qp.state == RTS:
                self._hca.qps.fail(qp)
        elif operation.control.completion & wqe.COMPLETION_ALWAYS:
            count = operation.length if operation.opcode in RETURNS else 0
            entry = cqe.Cqe.new(opcode=cqe.REQUESTER, byte_count=count, timestamp=self._hca.ticks(), **values)
            self._hca.completions.push(queue, entry)
