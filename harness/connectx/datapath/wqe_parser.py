"""Parse WQEs into operations and receives.

Ref: Linux 7.2 include/linux/mlx5/qp.h; drivers/infiniband/hw/mlx5/wr.c; rdma-core 56 providers/mlx5/qp.c.
"""

from __future__ import annotations

from harness.connectx.objects.mkeys import Refused
from harness.connectx.objects.operation import ATOMICS, REMOTE, Operation, Receive, Segment
from harness.connectx.objects.qps import QP0, QP1, UD, XRC, QueuePair
from harness.wire import cqe, wqe

MAX_SEGMENT = 1 << 31
"""Bytes of a segment that states 0. Ref: rdma-core 56 providers/mlx5/wqe.h."""

MAX_MESSAGE = 1 << 31


def parse(qp: QueuePair, control: wqe.Control, work: bytes, blocks: int) -> Operation:
    """Parse a send WQE. Raises Refused for one that makes no sense."""
    operation = Operation(qp, control, qp.sent, blocks)
    at = wqe.SEGMENT
    try:
        if qp.service in (UD, QP0, QP1):
            operation.vector = wqe.AddressVector(work, at)
            at += wqe.AddressVector.size
        elif qp.service == XRC:
            operation.xrc_srqn = wqe.Xrc(work, at).srqn
            at += wqe.Xrc.size
        if control.opcode in REMOTE:
            operation.remote = wqe.RemoteAddress(work, at)
            at += wqe.RemoteAddress.size
        if control.opcode in ATOMICS:
            operation.atomic = wqe.Atomic(work, at)
            at += wqe.Atomic.size
        operation.local = _segments(work, at, control.ds * wqe.SEGMENT)
    except ValueError as problem:
        raise Refused(cqe.LOCAL_QP_OPERATION, str(problem)) from problem
    operation.length = sum(segment.length for segment in operation.local)
    if control.opcode in ATOMICS:
        operation.length = 8
    if operation.length > MAX_MESSAGE:
        raise Refused(cqe.LOCAL_LENGTH, f"{operation.length} bytes in one message")
    return operation


def _segments(work: bytes, at: int, end: int) -> list[Segment]:
    segments = []
    while at + wqe.SEGMENT <= end:
        data = wqe.Data(work, at)
        if data.inline:
            length = data.inline_length
            if at + 4 + length > end:
                raise ValueError(f"{length} inline bytes in a WQE that ends before")
            segments.append(Segment(0, 0, length, work[at + 4 : at + 4 + length]))
            at += (4 + length + wqe.SEGMENT - 1) // wqe.SEGMENT * wqe.SEGMENT
            continue
        segments.append(Segment(data.lkey, data.address, data.byte_count or MAX_SEGMENT))
        at += wqe.SEGMENT
    return segments


def parse_receive(work: bytes, index: int, srqn: int | None) -> Receive:
    """Parse a receive WQE: segments up to the terminator."""
    segments = []
    for at in range(0, len(work) - wqe.SEGMENT + 1, wqe.SEGMENT):
        data = wqe.Data(work, at)
        if data.lkey == wqe.INVALID_LKEY and data.byte_count == 0:
            break
        segments.append(Segment(data.lkey, data.address, data.byte_count or MAX_SEGMENT))
    return Receive(index, segments, srqn)
