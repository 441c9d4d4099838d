"""Runs send queues: fetches work, moves it as far as it goes, completes it, comes back to what had to wait.

One operation at a time per QP (`qp.busy`): while it waits for a page, a receive or a peer, the QP waits.
Ref: Linux 7.2 include/linux/mlx5/qp.h; InfiniBand architecture 1.4, 9.7 (retries, RNR).
"""

from __future__ import annotations

import traceback
from collections import Counter, deque
from typing import TYPE_CHECKING, Any

from harness.connectx.datapath.progress import Runner
from harness.connectx.datapath.umr import run_umr
from harness.connectx.datapath.wqe_parser import (
    REMOTE,
    RETURNS,
    TAKES_RECEIVE,
    Operation,
    parse,
)
from harness.connectx.faults.fault_events import REQUESTER
from harness.connectx.objects.mkeys import Refused
from harness.connectx.objects.qps import (
    ERR,
    RTS,
    SQER,
    QueuePair,
)
from harness.connectx.rules.armed_rule import Delay
from harness.connectx.transport.memory import DmaError
from harness.wire import cqe, eqe, wqe

if TYPE_CHECKING:
    from harness.connectx.hca import Hca
    from harness.connectx.objects.queues import CompletionQueue


TURN_WQES, TURN_BYTES = 64, 1 << 20
"""What a queue may do before others, commands and doorbells have their turn: a guest may post as fast as we work."""


class Requester:
    """The send queues of a card, run in turns until none can go on."""

    def __init__(self, hca: Hca) -> None:
        self._hca = hca
        self._ready: deque[QueuePair] = deque()
        self._later: deque[QueuePair] = deque()
        self._counts: Counter[str] = Counter()
        self.runner = Runner(hca, self._finish, self._counts)

    # -- who is looked at

    def doorbell(self, number: int) -> None:
        """A send queue's producer moved."""
        qp = self._hca.judge.table("qp").get(number)
        if qp is None:
            self._hca.judge.missing("qp", number, "doorbell")
            return
        self.wake(qp)

    def wake(self, qp: QueuePair) -> None:
        """Look at this QP at the next `run`, or when its next turn is due."""
        if qp not in self._ready and qp not in self._later:
            self._ready.append(qp)

    def clear(self) -> None:
        """Nothing is to be done any more: a reset. The counts stay: they are the run's."""
        self._ready.clear()
        self._later.clear()

    def forget(self, qp: QueuePair) -> None:
        """The QP is reset or destroyed: nothing of it is left to do; who was sending to it tries again."""
        self.stop(qp)
        self._hca.responder.drop(qp, flushed=False)
        self._hca.faults.gone(qp.number)
        for queue in (self._ready, self._later):
            if qp in queue:
                queue.remove(qp)
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
        if failed is not None:
            self.runner.failed(operation, failed)
        self.wake(qp)

    def again(self, operation: Operation, delay_s: float) -> None:
        """Look at this operation when its timer is over and not before, whatever wakes its queue."""
        qp = operation.qp
        operation.again_s = self._hca.clock() + delay_s
        self._hca.timers.after(delay_s, qp, lambda: self.wake(qp))

    @property
    def waiting(self) -> bool:
        """Whether a queue has had its turn and is not through: `go_on` soon."""
        return bool(self._later or self._ready)

    def go_on(self) -> None:
        """The next turn of one queue that had one: when all that the guest has said meanwhile is read. A turn for each
        doorbell would have a short queue wait as often as a long one's were rung before its own; turns for all of
        them in one tick would have doorbells and commands wait for all.
        """
        if self._later:
            self.wake(self._later.popleft())
        self.run()

    def run(self) -> None:
        """Execute until nothing more can be done now; a queue that has had its turn waits for `go_on`."""
        while self._ready:
            qp = self._ready.popleft()
            if not qp.send_blocks or qp.dead or qp.state not in (RTS, SQER, ERR):
                continue
            try:
                if self._turn(qp):
                    self._postpone(qp)
            except DmaError as problem:
                self._catastrophe(qp, "bad-address", str(problem))
            except Exception:  # a defect of the model breaks one QP, not the card
                self._hca.log({"what": "error", "why": f"qp {qp.number:#x}", "trace": traceback.format_exc()})
                self._catastrophe(qp, "model-error", traceback.format_exc(limit=-1))

    def _postpone(self, qp: QueuePair) -> None:
        """The rest of a queue waits for `go_on`. It may have failed in its turn, which woke it."""
        if qp in self._ready:
            self._ready.remove(qp)
        self._later.append(qp)

    def _catastrophe(self, qp: QueuePair, kind: str, why: str) -> None:
        """The QP cannot go on: its rings, record or queue are not where they should be."""
        self._hca.judge.find(kind, f"qp {qp.number:#x}", why)
        qp.dead = True
        if qp.busy is not None:
            self._hca.faults.drop(qp.busy)
            qp.busy = None
        qp.state = ERR
        qp.context["state"] = ERR
        self._hca.events.post(eqe.WQ_CATAS_ERROR, eqe.QpSrqEqe.new(qp_srq_n=qp.number))

    def counters(self) -> dict[str, int]:
        """WQEs done by opcode, and how often something had to wait."""
        return dict(self._counts)

    # -- one queue

    def _turn(self, qp: QueuePair) -> bool:
        """Run it for a turn; whether it is not through."""
        wqes = moved = 0
        while wqes < TURN_WQES and moved < TURN_BYTES:
            operation = qp.busy
            if operation is None:
                if not self._fetch(qp):
                    return False
                wqes += 1
            elif qp.state in (SQER, ERR):
                self._hca.faults.drop(operation)
                self._hca.timers.cancel(qp)
                self._finish(operation, cqe.FLUSH)
            elif self._waits(operation) or not self.runner.advance(operation):
                return False
            else:
                moved += operation.length
        return qp.busy is not None or self._outstanding(qp) > 0

    def _waits(self, operation: Operation) -> bool:
        """Whether a page or its timer is waited for."""
        return operation.fault is not None or operation.again_s > self._hca.clock()

    def _outstanding(self, qp: QueuePair) -> int:
        """Blocks that are posted and not yet fetched."""
        return (self._hca.qps.producer(qp, 1) - qp.sent) & 0xFFFF

    def _fetch(self, qp: QueuePair) -> bool:
        """Take the next WQE; False when there is none."""
        outstanding = self._outstanding(qp)
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
            wait_s = qp.flush_due_s - self._hca.clock()
            if wait_s > 0:
                self._hca.timers.after(wait_s, qp, lambda: self.wake(qp))
                return False
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
            self.runner.note(operation, refusal.why)
            self._finish(operation, refusal.syndrome)
        except Delay as held:
            self._hca.timers.after(held.delay_s, qp, lambda: self.wake(qp))
            return False
        return True

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
