"""Work requests: WQEs taken apart into what is to be moved from where to where.

Ref: Linux 7.2 include/linux/mlx5/qp.h; drivers/infiniband/hw/mlx5/wr.c; rdma-core 56 providers/mlx5/qp.c.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

from harness.connectx.objects.mkeys import Refused
from harness.connectx.objects.qps import (
    QP0,
    QP1,
    UD,
    XRC,
    QueuePair,
)
from harness.wire import cqe, wqe

SENDS = {wqe.SEND, wqe.SEND_IMM, wqe.SEND_INVALIDATE}
WRITES = {wqe.RDMA_WRITE, wqe.RDMA_WRITE_IMM}
ATOMICS = {wqe.ATOMIC_CS, wqe.ATOMIC_FA}
REMOTE = WRITES | ATOMICS | {wqe.RDMA_READ}
TAKES_RECEIVE = SENDS | {wqe.RDMA_WRITE_IMM}
RETURNS = ATOMICS | {wqe.RDMA_READ}
"""Opcodes whose data comes back to the requester."""

MOST = 1 << 31
"""Bytes of a segment that says 0. Ref: rdma-core 56 providers/mlx5/wqe.h."""

MAX_MESSAGE = 1 << 31
GRH = 40


class Segment(NamedTuple):
    """A piece of a key: or, with `data`, bytes that stand in the WQE itself."""

    lkey: int
    va: int
    length: int
    data: bytes | None = None


@dataclass
class Receive:
    """A receive WQE that a message took: `index` of the WQE, its segments, and how much they hold. The first `head`
    bytes are left out: a datagram's GRH goes there.
    """

    index: int
    segments: list[Segment]
    srqn: int | None
    head: int = 0

    @property
    def room(self) -> int:
        """Bytes it can take."""
        return sum(segment.length for segment in self.segments)

    def rest(self, done: int) -> Iterator[Segment]:
        """The segments from that byte of the message on."""
        return rest_of(self.segments, self.head + done)


@dataclass
class Operation:
    """One send WQE on its way to QP `target`. `done` counts the bytes that have arrived; the rest goes on
    from there.

    `fault` is the open page fault that holds it, `again` the faults since a byte last moved, `tries` and
    `rnr_tries` how often it found nobody, or no receive, `again_s` when it may look again; `answer` what an
    atomic read.
    """

    qp: QueuePair
    control: wqe.Control
    index: int
    blocks: int
    local: list[Segment] = field(default_factory=list)
    length: int = 0
    remote: wqe.RemoteAddress | None = None
    atomic: wqe.Atomic | None = None
    vector: wqe.AddressVector | None = None
    xrc_srqn: int | None = None
    target: int = 0
    done: int = 0
    receive: Receive | None = None
    fault: object = None
    again: int = 0
    tries: int = 0
    rnr_tries: int = 0
    again_s: float = 0.0
    answer: bytes | None = None
    opcode: int = field(init=False)

    def __post_init__(self) -> None:
        """Taken out once: it is asked for all the way."""
        self.opcode = self.control.opcode

    def slice(self) -> Iterator[Segment]:
        """The local segments from `done` on."""
        return rest_of(self.local, self.done)


def rest_of(segments: list[Segment], skip: int) -> Iterator[Segment]:
    """The segments without their first `skip` bytes."""
    for segment in segments:
        if skip >= segment.length:
            skip -= segment.length
            continue
        data = None if segment.data is None else segment.data[skip:]
        yield Segment(segment.lkey, segment.va + skip, segment.length - skip, data)
        skip = 0


def parse(qp: QueuePair, control: wqe.Control, work: bytes, blocks: int) -> Operation:
    """A send WQE as an operation. Raises Refused for one that makes no sense."""
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
    found = []
    while at + wqe.SEGMENT <= end:
        data = wqe.Data(work, at)
        if data.inline:
            length = data.inline_length
            if at + 4 + length > end:
                raise ValueError(f"{length} inline bytes in a WQE that ends before")
            found.append(Segment(0, 0, length, work[at + 4 : at + 4 + length]))
            at += (4 + length + wqe.SEGMENT - 1) // wqe.SEGMENT * wqe.SEGMENT
            continue
        found.append(Segment(data.lkey, data.address, data.byte_count or MOST))
        at += wqe.SEGMENT
    return found


def parse_receive(work: bytes, index: int, srqn: int | None) -> Receive:
    """A receive WQE: segments up to the terminator."""
    segments = []
    for at in range(0, len(work) - wqe.SEGMENT + 1, wqe.SEGMENT):
        data = wqe.Data(work, at)
        if data.lkey == wqe.INVALID_LKEY and data.byte_count == 0:
            break
        segments.append(Segment(data.lkey, data.address, data.byte_count or MOST))
    return Receive(index, segments, srqn)
