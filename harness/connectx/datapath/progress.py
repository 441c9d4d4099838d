"""Takes operations as far as they go: to whom, whether allowed, and what they have to wait for or fail of.

Ref: InfiniBand architecture 1.4, 9.7 (retries, RNR); Linux 7.2 include/linux/mlx5/cq.h for syndromes.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import TYPE_CHECKING

from harness.connectx.datapath.dma import (
    PageMissing,
    RemoteRefused,
)
from harness.connectx.datapath.wqe_parser import (
    ATOMICS,
    GRH,
    RETURNS,
    SENDS,
    WRITES,
    Operation,
)
from harness.connectx.faults.fault_events import (
    RDMA,
    REQUESTER,
)
from harness.connectx.objects.mkeys import Refused
from harness.connectx.objects.qps import (
    RC,
    UC,
    XRC,
    QueuePair,
)
from harness.wire import cqe, eqe, wqe

if TYPE_CHECKING:
    from harness.connectx.hca import Hca

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

Finish = Callable[[Operation, int], None]


class Runner:
    """Runs operations for the requester, which hears of each one's end through `finish` (0 or a syndrome)."""

    def __init__(self, hca: Hca, finish: Finish, counts: Counter[str]) -> None:
        self._hca, self._finish, self._counts = hca, finish, counts

    def advance(self, operation: Operation) -> bool:
        """Take an operation as far as it goes; False when it must wait."""
        qp = operation.qp
        target = self._hca.responder.target(operation)
        if target is None:
            return self._nobody(operation)
        operation.target = target.number
        extra = GRH if operation.vector is not None else 0
        try:
            self._permitted(operation, target)
            local = self._hca.transfer.local(operation)
            begins = operation.opcode in SENDS and operation.receive is None
            if begins and local.absent is not None and (extra or not local.length):
                return self._absent(operation, target, PageMissing(REQUESTER, local.absent))
            self._hca.responder.heard(target)
            if begins and not self._take(operation, target, extra):
                return qp.busy is None
            stop = self._hca.transfer.advance(operation, target, local)
            ends = stop is None and operation.opcode == wqe.RDMA_WRITE_IMM
            if ends and not self._take(operation, target, extra):
                return qp.busy is None
        except Refused as refusal:
            self.note(operation, refusal.why)
            self._finish(operation, refusal.syndrome)
            return True
        except RemoteRefused as refusal:
            self.note(operation, refusal.why)
            self.refused(operation, target, refusal)
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

    def _take(self, operation: Operation, target: QueuePair, extra: int) -> bool:
        """Take a receive: for a send when its first bytes can go out (a datagram's: when all can), for a write with
        immediate when the rest is done. False when there is none: the operation waits, or has ended.
        """
        if self._hca.responder.occupied(target):
            self._hca.requester.again(operation, ACK_LEAST_S)
            return False
        operation.receive = self._hca.responder.take(target, operation)
        if operation.receive is None:
            self._not_ready(operation, target)
            return False
        self._fits(operation, target, extra)
        return True

    def _fits(self, operation: Operation, target: QueuePair, extra: int) -> None:
        """A datagram's first bytes are for the GRH; what is longer than the receive is refused."""
        receive = operation.receive
        assert receive is not None
        if operation.opcode == wqe.RDMA_WRITE_IMM:
            return
        if receive.room < operation.length + extra:
            why = f"{operation.length + extra} bytes for a receive of {receive.room}"
            if operation.qp.service not in (RC, XRC):
                self._too_long(operation, target)
            raise RemoteRefused(cqe.REMOTE_INVALID_REQUEST, cqe.LOCAL_LENGTH, why)
        receive.head = extra

    def _too_long(self, operation: Operation, target: QueuePair) -> None:
        """An unreliable message that does not fit is dropped: its receive stays posted, a shared queue cannot
        take it back and completes it with an error.

        Ref: InfiniBand architecture 1.4, 9.9.3 (classes D and E); Linux 7.2 drivers/infiniband/sw/rxe/rxe_resp.c
        """
        receive, operation.receive = operation.receive, None
        assert receive is not None
        if receive.srqn is None:
            target.received = target.received - 1 & 0xFFFF
            target.taking = None
        else:
            self._hca.responder.error(target, receive, cqe.REMOTE_INVALID_REQUEST)

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
        self._hca.requester.again(operation, delay_s)
        return False

    def _not_ready(self, operation: Operation, target: QueuePair) -> None:
        """No receive is posted: RNR. Posting one rings no doorbell, so a timer looks again."""
        qp = operation.qp
        if qp.service not in (RC, XRC):
            self._finish(operation, 0)
            return
        operation.rnr_tries += 1
        most = qp.context["rnr_retry"]
        if most != FOREVER and operation.rnr_tries > most:
            self._finish(operation, cqe.RNR_RETRY_EXCEEDED)
            return
        self._counts["rnr"] += 1
        delay_s = max(RNR_MS[target.context["min_rnr_nak"]] / 1000, RNR_LEAST_S)
        self._hca.requester.again(operation, delay_s)

    def _absent(self, operation: Operation, target: QueuePair, stop: PageMissing) -> bool:
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
            self.refused(operation, target, refusal)
        return True

    def refused(self, operation: Operation, target: QueuePair | None, refusal: RemoteRefused) -> None:
        """The responder's side refuses: it breaks too, with a completion or an event; UC and UD do not
        tell."""
        reliable = operation.qp.service in (RC, XRC)
        if target is not None and operation.receive is not None and refusal.local:
            self._hca.responder.fail(target, operation.receive, refusal.local)
        elif target is not None and reliable:
            kind = eqe.WQ_ACCESS_ERROR if refusal.syndrome == cqe.REMOTE_ACCESS else eqe.WQ_INVALID_REQUEST
            self._hca.events.post(kind, eqe.QpSrqEqe.new(qp_srq_n=target.number))
            self._hca.responder.fail(target, None, 0)
        self._finish(operation, refusal.syndrome if reliable else 0)

    def note(self, operation: Operation, why: str) -> None:
        """Log why something was refused."""
        self._hca.log({"what": "refused", "qpn": operation.qp.number, "why": why})

    def failed(self, operation: Operation, side: str) -> None:
        """The driver could not make a page present on that side."""
        if side == REQUESTER:
            self._finish(operation, cqe.LOCAL_PROTECTION)
            return
        target = self._hca.judge.table("qp").get(operation.target)
        syndrome = cqe.REMOTE_ACCESS if side == RDMA else cqe.REMOTE_OPERATION
        self.refused(operation, target, RemoteRefused(syndrome, cqe.LOCAL_PROTECTION, "page fault failed"))
