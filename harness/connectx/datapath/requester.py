"""Requester: run send queues, one operation at a time per QP (`qp.busy`), and complete their WQEs.

While an operation waits for a page, a receive or a target, its QP waits.
Ref: Linux 7.2 include/linux/mlx5/qp.h; InfiniBand architecture 1.4, 9.7 (retries, RNR).
"""

from __future__ import annotations

import traceback
from collections import Counter
from typing import Any

from harness.connectx.datapath.dma import Transfer
from harness.connectx.datapath.progress import Progress
from harness.connectx.datapath.responder import Responder
from harness.connectx.datapath.run_queue import RunQueue
from harness.connectx.datapath.umr import Delay, Umr
from harness.connectx.datapath.wqe_parser import parse
from harness.connectx.device import DeviceState
from harness.connectx.faults.faults import Faults
from harness.connectx.objects.mkeys import Keys, Refused
from harness.connectx.objects.operation import REMOTE, REQUESTER, RETURNS, TAKES_RECEIVE, Operation
from harness.connectx.objects.qps import ERR, RST, RTR, RTS, SQER, QueuePair, QueuePairs
from harness.connectx.objects.queues import CompletionQueue, Completions, Events
from harness.connectx.transport.memory import DmaError
from harness.wire import cqe, eqe, wqe

SLICE_WQES, SLICE_BYTES = 64, 1 << 20
"""Time slice of a queue, before others, commands and doorbells are served: a guest may post as fast as we work."""


class Requester:
    """Send queues of a card, run in time slices until none can go on."""

    def __init__(
        self,
        device: DeviceState,
        events: Events,
        completions: Completions,
        keys: Keys,
        qps: QueuePairs,
        run_queue: RunQueue,
        responder: Responder,
        transfer: Transfer,
        umr: Umr,
        faults: Faults,
    ) -> None:
        self._device, self._events, self._completions, self._qps = device, events, completions, qps
        self._run_queue, self._responder, self._umr, self._faults = run_queue, responder, umr, faults
        self._counts: Counter[str] = Counter()
        self._progress = Progress(
            device,
            events,
            keys,
            faults,
            responder,
            transfer,
            self._counts,
            finish=self._finish,
            again=self._again,
        )

    # -- which QPs run

    def doorbell(self, number: int) -> None:
        """Run a QP whose send queue's producer has moved."""
        qp = self._device.objects.table("qp").get(number)
        if qp is None:
            self._device.objects.missing("qp", number, "doorbell")
            return
        self._run_queue.wake(qp)

    def clear(self) -> None:
        """Forget all work: a reset. The counts stay: they belong to the run."""
        self._run_queue.clear()

    def entered(self, qp: QueuePair) -> None:
        """Follow a state transition of a QP."""
        if qp.state == RST:
            self.forget(qp)
        elif qp.state == ERR:
            self._stop(qp)
            self._responder.enter_error(qp)
        elif qp.state in (RTS, RTR):
            self._run_queue.wake(qp)

    def forget(self, qp: QueuePair) -> None:
        """Drop the work of a QP that is reset or destroyed; a sender to it tries again."""
        self._stop(qp)
        self._responder.drop(qp, flushed=False)
        self._faults.queue_gone(qp.number)
        self._run_queue.remove(qp)
        self._device.timers.cancel(("flush", qp))
        self._device.timers.cancel(qp)
        qp.busy = None

    def _stop(self, qp: QueuePair) -> None:
        """Drop the faults of a QP that cannot receive or send any more."""
        if qp.busy is not None:
            self._faults.drop(qp.busy)
            self._run_queue.wake(qp)
        for fault in list(self._faults.open.values()):
            if fault.operation.target == qp.number and fault.side != REQUESTER:
                self._faults.drop(fault.operation)
                self._run_queue.wake(fault.operation.qp)

    def resume(self, operation: Operation, failed: str | None) -> None:
        """Go on with an operation whose fault is resolved; `failed` is the side on which it could not be."""
        qp = operation.qp
        if qp.busy is not operation:
            return
        if failed is not None:
            self._progress.failed(operation, failed)
        self._run_queue.wake(qp)

    def _again(self, operation: Operation, delay_s: float) -> None:
        """Try this operation again in `delay_s` and not before, whatever wakes its queue."""
        operation.again_s = self._device.clock() + delay_s
        self._wake_after(operation.qp, delay_s)

    def _wake_after(self, qp: QueuePair, delay_s: float) -> None:
        self._device.timers.after(delay_s, qp, lambda: self._run_queue.wake(qp))

    @property
    def waiting(self) -> bool:
        """True while a queue is not through: `go_on` soon."""
        return self._run_queue.waiting

    def go_on(self) -> None:
        """Run the next time slice of one deferred QP.

        One slice per tick, so long queues starve neither doorbells nor commands.
        """
        self._run_queue.release()
        self.run()

    def run(self) -> None:
        """Run until nothing more can be done now; a queue that has used its time slice waits for `go_on`."""
        while (qp := self._run_queue.take()) is not None:
            if not qp.send_blocks or qp.dead or qp.state not in (RTS, SQER, ERR):
                continue
            try:
                if self._slice(qp):
                    self._run_queue.defer(qp)
            except DmaError as problem:
                self._catastrophe(qp, "bad-address", str(problem))
            except Exception:  # a defect of the model breaks one QP, not the card
                trace = traceback.format_exc()
                self._device.log({"what": "error", "why": f"qp {qp.number:#x}", "trace": trace})
                self._catastrophe(qp, "model-error", traceback.format_exc(limit=-1))

    def _catastrophe(self, qp: QueuePair, kind: str, why: str) -> None:
        """Kill a QP that cannot go on: its rings, record or queue are not where they should be."""
        self._device.findings.report(kind, f"qp {qp.number:#x}", why)
        qp.dead = True
        if qp.busy is not None:
            self._faults.drop(qp.busy)
            qp.busy = None
        qp.state = ERR
        qp.context["state"] = ERR
        self._events.post(eqe.WQ_CATAS_ERROR, eqe.QpSrqEqe.new(qp_srq_n=qp.number))

    def counters(self) -> dict[str, int]:
        """Count the WQEs done by opcode, and how often one had to wait."""
        return dict(self._counts)

    # -- one queue

    def _slice(self, qp: QueuePair) -> bool:
        """Run a QP for a time slice; True while it is not through."""
        wqes = moved = 0
        while wqes < SLICE_WQES and moved < SLICE_BYTES:
            operation = qp.busy
            if operation is None:
                if not self._fetch(qp):
                    return False
                wqes += 1
            elif qp.state in (SQER, ERR):
                self._faults.drop(operation)
                self._device.timers.cancel(qp)
                self._finish(operation, cqe.FLUSH)
            elif self._waits(operation) or not self._progress.advance(operation):
                return False
            else:
                moved += operation.length
        return qp.busy is not None or self._outstanding(qp) > 0

    def _waits(self, operation: Operation) -> bool:
        """Return whether an operation waits for a page or its timer."""
        return operation.fault is not None or operation.again_s > self._device.clock()

    def _outstanding(self, qp: QueuePair) -> int:
        """Count the blocks that are posted and not yet fetched."""
        return (self._qps.producer(qp, 1) - qp.sent) & 0xFFFF

    def _fetch(self, qp: QueuePair) -> bool:
        """Fetch the next WQE; False when there is none, or it has to wait."""
        outstanding = self._outstanding(qp)
        if outstanding > qp.send_blocks:
            detail = f"{outstanding} blocks posted, the queue has {qp.send_blocks}"
            self._device.findings.report("bad-value", f"qp {qp.number:#x}", detail)
            return False
        if not outstanding:
            return False
        control = wqe.Control(self._qps.blocks(qp, qp.sent, wqe.SEGMENT))
        work = self._qps.blocks(qp, qp.sent, max(control.ds, 1) * wqe.SEGMENT)
        blocks = (len(work) + wqe.BLOCK - 1) // wqe.BLOCK
        operation = Operation(qp, control, qp.sent, blocks)
        if qp.state in (SQER, ERR):
            wait_s = qp.flush_due_s - self._device.clock()
            if wait_s > 0:
                self._wake_after(qp, wait_s)
                return False
            self._finish(operation, cqe.FLUSH)
            return True
        try:
            if control.opcode == wqe.UMR:
                self._umr.run(qp, control, work)
            elif control.opcode in TAKES_RECEIVE | REMOTE:
                qp.busy = parse(qp, control, work, blocks)
                return True
            elif control.opcode != wqe.NOP:
                raise Refused(cqe.LOCAL_QP_OPERATION, f"opcode {control.opcode:#x}")
            self._finish(operation, 0)
        except Refused as refusal:
            self._progress.note(operation, refusal.why)
            self._finish(operation, refusal.syndrome)
        except Delay as delay:
            self._wake_after(qp, delay.delay_s)
            return False
        return True

    # -- completion

    def _finish(self, operation: Operation, syndrome: int) -> None:
        """Complete a send WQE: a CQE if requested or failed; a failed one breaks the QP. The queue moves on."""
        qp = operation.qp
        qp.busy = None
        qp.sent = (operation.index + operation.blocks) & 0xFFFF
        self._counts[f"opcode {operation.opcode:#x}"] += 1
        queue: CompletionQueue | None = self._device.objects.table("cq").get(qp.send_cq)
        if queue is None:
            self._device.objects.missing("cq", qp.send_cq, f"qp {qp.number:#x}")
            return
        values: dict[str, Any] = {
            "srqn_uidx": qp.user_index,
            "wqe_opcode": operation.opcode,
            "qpn": qp.number,
            "wqe_counter": operation.index,
        }
        if syndrome:
            error = cqe.ErrorCqe.new(opcode=cqe.REQUESTER_ERROR, syndrome=syndrome, **values)
            self._completions.push(queue, error)
            if qp.state == RTS:
                self._responder.fail_queue(qp)
        elif operation.control.completion & wqe.COMPLETION_ALWAYS:
            count = operation.length if operation.opcode in RETURNS else 0
            entry = cqe.Cqe.new(
                opcode=cqe.REQUESTER, byte_count=count, timestamp=self._device.ticks(), **values
            )
            self._completions.push(queue, entry)
