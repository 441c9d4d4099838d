"""Advance one WQE: find the target QP, check permissions, move data, or park it (fault, RNR, timeout).

Ref: InfiniBand architecture 1.4, 9.7 (retries, RNR); Linux 7.2 include/linux/mlx5/cq.h for syndromes.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

from harness.connectx.datapath.dma import PageMissing, RemoteRefused, Transfer
from harness.connectx.datapath.responder import Responder
from harness.connectx.device import DeviceState
from harness.connectx.faults.faults import Faults, Parked
from harness.connectx.objects.mkeys import Keys, Refused
from harness.connectx.objects.operation import ATOMICS, RDMA, REQUESTER, RETURNS, SENDS, WRITES, Operation
from harness.connectx.objects.qps import (
    RC,
    UC,
    XRC,
    QueuePair,
)
from harness.connectx.objects.queues import Events
from harness.wire import cqe, eqe, wqe

FOREVER = 7
"""Value of rnr_retry: never give up. Ref: InfiniBand architecture 1.4, 9.7.5.2.8."""

RNR_MS = (
    (655.36, 0.01, 0.02, 0.03, 0.04, 0.06, 0.08, 0.12, 0.16, 0.24, 0.32, 0.48, 0.64, 0.96, 1.28, 1.92)
    + (2.56, 3.84, 5.12, 7.68, 10.24, 15.36, 20.48, 30.72, 40.96, 61.44, 81.92, 122.88, 163.84, 245.76)
    + (327.68, 491.52)
)
"""RNR timer values. Ref: InfiniBand architecture 1.4, table 45."""

MIN_RNR_S = 0.0005
MIN_ACK_S = 0.001
BUSY_S = 0.001
"""Delay before a fault is tried again that cannot be raised while another of its kind is open."""

GRH = 40
"""Bytes before a datagram's data."""

NEED = {True: "rwe", False: "rre"}

Finish = Callable[[Operation, int], None]
Again = Callable[[Operation, float], None]


class Progress:
    """Progress of operations. `finish` ends one (0 or a syndrome), `again` tries one again in so many seconds."""

    def __init__(
        self,
        device: DeviceState,
        events: Events,
        keys: Keys,
        faults: Faults,
        responder: Responder,
        transfer: Transfer,
        counts: Counter[str],
        finish: Finish,
        again: Again,
    ) -> None:
        self._device, self._events, self._keys, self._faults = device, events, keys, faults
        self._responder, self._transfer = responder, transfer
        self._counts, self._finish, self._again = counts, finish, again

    def advance(self, operation: Operation) -> bool:
        """Advance an operation until it ends; False when it has to wait."""
        qp = operation.qp
        target = self._responder.target(operation)
        if target is None:
            return self._no_target(operation)
        operation.target = target.number
        extra = GRH if operation.vector is not None else 0
        try:
            self._permitted(operation, target)
            local = self._transfer.local(operation)
            begins = operation.opcode in SENDS and operation.receive is None
            if begins and local.absent is not None and (extra or not local.length):
                return self._absent(operation, target, PageMissing(REQUESTER, local.absent))
            self._responder.establish(target)
            if begins and not self._take(operation, target, extra):
                return qp.busy is None
            missing = self._transfer.advance(operation, target, local)
            ends = missing is None and operation.opcode == wqe.RDMA_WRITE_IMM
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
        if missing is not None:
            return self._absent(operation, target, missing)
        self._responder.complete(target, operation, extra)
        if operation.opcode == wqe.SEND_INVALIDATE:
            self._keys.invalidate(operation.control.general_id, target.pd)
        self._finish(operation, 0)
        return qp.busy is None

    def _permitted(self, operation: Operation, target: QueuePair) -> None:
        """Refuse operations that the responder does not allow at all."""
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
        """Take a receive. False when there is none: the operation waits, or has ended.

        For a send when its first bytes can be moved (a datagram's: when all can), for a write with immediate when the
        rest is done.
        """
        if self._responder.occupied(target):
            self._again(operation, MIN_ACK_S)
            return False
        operation.receive = self._responder.take(target, operation)
        if operation.receive is None:
            self._not_ready(operation, target)
            return False
        self._fits(operation, target, extra)
        return True

    def _fits(self, operation: Operation, target: QueuePair, extra: int) -> None:
        """Refuse a message that is longer than its receive. A datagram's first bytes are for the GRH."""
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
        """Drop an unreliable message that does not fit. Its receive stays posted.

        A shared queue cannot take the receive back and completes it with an error.

        Ref: InfiniBand architecture 1.4, 9.9.3 (classes D and E); Linux 7.2 drivers/infiniband/sw/rxe/rxe_resp.c
        """
        receive, operation.receive = operation.receive, None
        assert receive is not None
        if receive.srqn is None:
            target.received = target.received - 1 & 0xFFFF
            target.taking = None
        else:
            self._responder.error(target, receive, cqe.REMOTE_INVALID_REQUEST)

    def _no_target(self, operation: Operation) -> bool:
        """Wait for a QP that receives it: reliable services try again, then give up; others do not notice."""
        qp = operation.qp
        if qp.service not in (RC, XRC):
            self._finish(operation, 0)
            return True
        timeout, limit = qp.context["primary_address_path.ack_timeout"], qp.context["retry_count"]
        operation.tries += 1
        if timeout and operation.tries > limit:
            self._finish(operation, cqe.RETRY_EXCEEDED)
            return True
        self._counts["retries"] += 1
        delay_s = max(4.096e-6 * (1 << timeout), MIN_ACK_S) if timeout else 0.1
        self._again(operation, delay_s)
        return False

    def _not_ready(self, operation: Operation, target: QueuePair) -> None:
        """Wait for a receive (RNR). Posting one rings no doorbell, so a timer looks again."""
        qp = operation.qp
        if qp.service not in (RC, XRC):
            self._finish(operation, 0)
            return
        operation.rnr_tries += 1
        limit = qp.context["rnr_retry"]
        if limit != FOREVER and operation.rnr_tries > limit:
            self._finish(operation, cqe.RNR_RETRY_EXCEEDED)
            return
        self._counts["rnr"] += 1
        delay_s = max(RNR_MS[target.context["min_rnr_nak"]] / 1000, MIN_RNR_S)
        self._again(operation, delay_s)

    def _absent(self, operation: Operation, target: QueuePair, missing: PageMissing) -> bool:
        """Park on an absent page, unless the service drops such messages or it cannot be resolved."""
        if operation.qp.service not in (RC, XRC) and missing.side == RDMA:
            self._finish(operation, 0)
            return True
        parked = self._faults.park(operation, missing.side, missing.absent)
        if parked is not Parked.UNRESOLVED:
            if parked is Parked.BUSY:
                self._again(operation, BUSY_S)
            self._counts["parked"] += 1
            return False
        if missing.side == REQUESTER:
            self._finish(operation, cqe.LOCAL_PROTECTION)
        else:
            refusal = RemoteRefused(cqe.REMOTE_OPERATION, cqe.LOCAL_PROTECTION, "page fault is not resolved")
            self.refused(operation, target, refusal)
        return True

    def refused(self, operation: Operation, target: QueuePair | None, refusal: RemoteRefused) -> None:
        """Fail an operation that the responder refuses; it breaks too, with a completion or an event.

        UC and UD do not report it to the requester.
        """
        reliable = operation.qp.service in (RC, XRC)
        if target is not None and operation.receive is not None and refusal.local:
            self._responder.fail(target, operation.receive, refusal.local)
        elif target is not None and reliable:
            kind = eqe.WQ_ACCESS_ERROR if refusal.syndrome == cqe.REMOTE_ACCESS else eqe.WQ_INVALID_REQUEST
            self._events.post(kind, eqe.QpSrqEqe.new(qp_srq_n=target.number))
            self._responder.fail(target, None, 0)
        self._finish(operation, refusal.syndrome if reliable else 0)

    def note(self, operation: Operation, why: str) -> None:
        """Log why an operation was refused."""
        self._device.log({"what": "refused", "qpn": operation.qp.number, "why": why})

    def failed(self, operation: Operation, side: str) -> None:
        """Fail an operation whose page the driver could not make present on that side."""
        if side == REQUESTER:
            self._finish(operation, cqe.LOCAL_PROTECTION)
            return
        target = self._device.objects.table("qp").get(operation.target)
        syndrome = cqe.REMOTE_ACCESS if side == RDMA else cqe.REMOTE_OPERATION
        self.refused(operation, target, RemoteRefused(syndrome, cqe.LOCAL_PROTECTION, "page fault failed"))
