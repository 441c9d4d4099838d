"""Moves the bytes of an operation, as far as pages are there.

Both sides are lists of pieces; what is absent stops the operation at that byte, on that side. Everything
that can be refused is refused before a byte moves: keys, variants, PDs, permissions, ranges.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from typing import TYPE_CHECKING, NamedTuple

from harness.connectx.datapath.wqe_parser import (
    ATOMICS,
    RETURNS,
    WRITES,
    Operation,
    Segment,
)
from harness.connectx.faults.fault_events import (
    RDMA,
    RECEIVER,
    REQUESTER,
)
from harness.connectx.objects.mkeys import (
    Absent,
    Refused,
    Span,
    User,
)
from harness.wire import cqe, wqe

if TYPE_CHECKING:
    from harness.connectx.hca import Hca
    from harness.connectx.objects.qps import QueuePair

MASK_64 = (1 << 64) - 1
CHUNK = 1 << 20
"""Bytes in one copy at most: what a driver asks for must not decide what this process holds."""


class PageMissing(NamedTuple):
    """An absent page: on which side, and what."""

    side: str
    absent: Absent


class Side(NamedTuple):
    """One end of a movement: its pieces from the operation's `done` on, and where they first are absent."""

    spans: list[tuple[Span, bytes | None]]
    length: int
    absent: Absent | None


class RemoteRefused(Exception):
    """The responder's side refuses: `syndrome` for the requester, `local` for the responder's own
    completion."""

    def __init__(self, syndrome: int, local: int, why: str) -> None:
        super().__init__(why)
        self.syndrome, self.local, self.why = syndrome, local, why


class Transfer:
    """Runs operations over the guest's memory."""

    def __init__(self, hca: Hca) -> None:
        self._hca = hca

    def advance(self, operation: Operation, target: QueuePair, local: Side) -> PageMissing | None:
        """Go on until all is done (None) or a page is absent. Raises RemoteRefused."""
        if operation.opcode in ATOMICS:
            return self._atomic(operation, target, local)
        left = operation.length - operation.done
        if not left:
            return None
        remote = self._remote(operation, target, left)
        back = operation.opcode in RETURNS
        source, sink = (remote, local) if back else (local, remote)
        moved = self._copy(source, sink, left)
        operation.done += moved
        if moved:
            operation.again = 0
        if moved == left:
            return None
        here = REQUESTER, local
        there = (RDMA if operation.remote is not None else RECEIVER), remote
        first, second = (there, here) if back else (here, there)
        for side, pieces in (first, second):
            if pieces.length <= moved and pieces.absent is not None:
                return PageMissing(side, pieces.absent)
        raise RuntimeError("bytes are missing on neither side")

    def _side(
        self,
        operation: Operation,
        side: str,
        segments: Iterable[Segment],
        user: User,
        need: str,
        syndrome: int,
        limit: int,
    ) -> Side:
        """The pieces of a list, for `limit` bytes; all of it is checked, even behind an absent page."""
        spans: list[tuple[Span, bytes | None]] = []
        absent: Absent | None = None
        length = 0
        for segment in segments:
            size = min(segment.length, limit)
            if size <= 0:
                break
            limit -= size
            if segment.data is not None:
                found: list[tuple[Span, bytes | None]] = [(Span(None, size), segment.data)]
                missing = None
            else:
                reached = self._hca.keys.access(segment.lkey, segment.va, size, user, need, syndrome)
                if self._hca.rules.on_access:
                    wanted = segment._replace(length=size)
                    write = need in ("lw", "rw", "a")
                    reached = self._hca.rules.access(operation, side, wanted, write, reached)
                pieces, missing = reached
                found = [(piece, None) for piece in pieces]
            if absent is None:
                spans += found
                length += sum(span.length for span, _ in found)
                absent = missing
        return Side(spans, length, absent)

    def local(self, operation: Operation) -> Side:
        """The requester's end. Raises Refused."""
        need = "lw" if operation.opcode in RETURNS else "lr"
        left = operation.length - operation.done
        pieces = operation.slice()
        return self._side(operation, REQUESTER, pieces, operation.qp.user, need, cqe.LOCAL_PROTECTION, left)

    def _remote(self, operation: Operation, target: QueuePair, left: int) -> Side:
        try:
            if operation.remote is not None:
                address = operation.remote.address + operation.done & MASK_64
                piece = Segment(operation.remote.rkey, address, left)
                need = "rw" if operation.opcode in WRITES else "rr"
                user = self._hca.responder.remote_user(operation, target)
                return self._side(operation, RDMA, [piece], user, need, cqe.REMOTE_ACCESS, left)
            assert operation.receive is not None
            pieces = operation.receive.rest(operation.done)
            user = self._hca.responder.receive_user(operation.receive, target)
            return self._side(operation, RECEIVER, pieces, user, "lw", cqe.LOCAL_PROTECTION, left)
        except Refused as refusal:
            if refusal.syndrome == cqe.REMOTE_ACCESS:
                raise RemoteRefused(cqe.REMOTE_ACCESS, 0, refusal.why) from refusal
            raise RemoteRefused(cqe.REMOTE_OPERATION, refusal.syndrome, refusal.why) from refusal

    def _copy(self, source: Side, sink: Side, limit: int) -> int:
        """Move bytes from piece to piece; how many."""
        memory, moved = self._hca.memory, 0
        limit = min(limit, source.length, sink.length)
        pairs, skip = iter(sink.spans), 0
        into = next(pairs)[0] if sink.spans else Span(None, 0)
        for span, data in source.spans:
            at = 0
            while at < span.length and moved < limit:
                if skip == into.length:
                    into, skip = next(pairs)[0], 0
                size = min(span.length - at, into.length - skip, limit - moved, CHUNK)
                if into.address is not None and span.address is not None:
                    memory.copy(span.address + at, into.address + skip, size)
                elif into.address is not None:
                    memory.write(into.address + skip, bytes(size) if data is None else data[at : at + size])
                at, skip, moved = at + size, skip + size, moved + size
        return moved

    def _atomic(self, operation: Operation, target: QueuePair, local: Side) -> PageMissing | None:
        """Eight bytes, little endian in memory as the driver asks. Ref: Linux 7.2 core/main.c
        handle_hca_cap_atomic."""
        assert operation.remote is not None and operation.atomic is not None
        address = operation.remote.address
        if address & 7:
            raise RemoteRefused(cqe.REMOTE_INVALID_REQUEST, 0, f"atomic at {address:#x}")
        if operation.answer is None:
            try:
                word = Segment(operation.remote.rkey, address, 8)
                user = self._hca.responder.remote_user(operation, target)
                there = self._side(operation, RDMA, [word], user, "a", cqe.REMOTE_ACCESS, 8)
            except Refused as refusal:
                raise RemoteRefused(cqe.REMOTE_ACCESS, 0, refusal.why) from refusal
            if there.absent is not None:
                return PageMissing(RDMA, there.absent)
            operation.answer = self._exchange(operation, there.spans[0][0])
        if local.absent is not None:
            return PageMissing(REQUESTER, local.absent)
        answer = Side([(Span(None, 8), operation.answer)], 8, None)
        self._copy(answer, local, 8)
        operation.done = 8
        return None

    def _exchange(self, operation: Operation, span: Span) -> bytes:
        """Do it; the value that was there."""
        assert operation.atomic is not None
        if span.address is None:
            return bytes(8)
        before = self._hca.memory.read(span.address, 8)
        (value,) = struct.unpack("<Q", before)
        operand = operation.atomic.swap_add
        if operation.opcode == wqe.ATOMIC_FA:
            self._hca.memory.write(span.address, struct.pack("<Q", value + operand & MASK_64))
        elif value == operation.atomic.compare:
            self._hca.memory.write(span.address, struct.pack("<Q", operand))
        return before
