"""Operations: one send WQE in progress, with its segments, the receive it took and its open page fault."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

from harness.connectx.objects.qps import QueuePair
from harness.wire import wqe

SENDS = {wqe.SEND, wqe.SEND_IMM, wqe.SEND_INVALIDATE}
WRITES = {wqe.RDMA_WRITE, wqe.RDMA_WRITE_IMM}
ATOMICS = {wqe.ATOMIC_CS, wqe.ATOMIC_FA}
REMOTE = WRITES | ATOMICS | {wqe.RDMA_READ}
TAKES_RECEIVE = SENDS | {wqe.RDMA_WRITE_IMM}
RETURNS = ATOMICS | {wqe.RDMA_READ}
"""Opcodes whose data comes back to the requester."""

REQUESTER, RECEIVER, RDMA = "requester", "receiver", "rdma"
"""Sides: the local list of a send WQE, the list of a receive WQE, the remote address of an RDMA operation."""


class Segment(NamedTuple):
    """A range of a key: or, with `data`, bytes that the WQE itself contains."""

    lkey: int
    va: int
    length: int
    data: bytes | None = None


@dataclass
class Receive:
    """A receive WQE that a message took.

    `index` is the WQE's. The first `head` bytes of its segments are left out: a datagram's GRH goes there.
    """

    index: int
    segments: list[Segment]
    srqn: int | None
    head: int = 0

    @property
    def room(self) -> int:
        """Bytes it can hold."""
        return sum(segment.length for segment in self.segments)

    def rest(self, done: int) -> Iterator[Segment]:
        """Yield the segments from byte `done` of the message on."""
        return skip_bytes(self.segments, self.head + done)


@dataclass(eq=False)
class Fault:
    """An open page fault: `key` is how a resume names it, `kind` the type that the resume must carry.

    `resumed`: the driver resumed it, and a rule delays the effect.
    """

    key: int
    kind: int
    side: str
    operation: Operation
    raised_s: float
    resumed: bool = False

    def __str__(self) -> str:
        return f"fault {self.key:#x} ({self.side} of qp {self.operation.qp.number:#x})"


@dataclass
class Operation:
    """One send WQE on its way to QP `target`; `done` counts the bytes that have arrived.

    `fault` is the open page fault that blocks it, `again` the faults since a byte last moved, `tries` and
    `rnr_tries` the attempts without a peer and without a receive, `again_s` the earliest time of the next one;
    `answer` is what an atomic read.
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
    fault: Fault | None = None
    again: int = 0
    tries: int = 0
    rnr_tries: int = 0
    again_s: float = 0.0
    answer: bytes | None = None
    opcode: int = field(init=False)

    def __post_init__(self) -> None:
        """Cache the opcode: it is read on every step."""
        self.opcode = self.control.opcode

    def rest(self) -> Iterator[Segment]:
        """Yield the local segments from `done` on."""
        return skip_bytes(self.local, self.done)


def skip_bytes(segments: list[Segment], skip: int) -> Iterator[Segment]:
    """Yield the segments without their first `skip` bytes."""
    for segment in segments:
        if skip >= segment.length:
            skip -= segment.length
            continue
        data = None if segment.data is None else segment.data[skip:]
        yield Segment(segment.lkey, segment.va + skip, segment.length - skip, data)
        skip = 0
