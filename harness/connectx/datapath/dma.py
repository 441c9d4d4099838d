"""Move the bytes of an operation until a page is absent.

Both sides are lists of spans; an absent page stops the operation at that byte, on that side. Everything that can
be refused is refused before a byte moves: keys, variants, PDs, permissions, ranges.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from typing import NamedTuple

from harness.connectx.datapath.responder import Responder
from harness.connectx.device import DeviceState
from harness.connectx.objects.mkeys import (
    Absent,
    Keys,
    Refused,
    Span,
    User,
)
from harness.connectx.objects.operation import (
    ATOMICS,
    RDMA,
    RECEIVER,
    REQUESTER,
    RETURNS,
    WRITES,
    Operation,
    Segment,
)
from harness.connectx.objects.qps import QueuePair
from harness.connectx.rules.rules import InjectionRules
from harness.wire import cqe, wqe

MASK_64 = (1 << 64) - 1
CHUNK = 1 << 20
"""Limit of bytes in one copy: a driver must not decide how much memory this process needs."""


class PageMissing(NamedTuple):
    """An absent page, and the side it is on."""

    side: str
    absent: Absent


class Side(NamedTuple):
    """One end of a transfer: its spans from the operation's `done` on, up to the first absent page."""

    spans: list[tuple[Span, bytes | None]]
    length: int
    absent: Absent | None


class RemoteRefused(Exception):
    """The responder refuses: `syndrome` is the requester's, `local` that of the responder's own completion."""

    def __init__(self, syndrome: int, local: int, why: str) -> None:
        super().__init__(why)
        self.syndrome, self.local, self.why = syndrome, local, why


class Transfer:
    """Transfers between keys in the guest's memory."""

    def __init__(self, device: DeviceState, keys: Keys, rules: InjectionRules, responder: Responder) -> None:
        self._device, self._keys, self._rules, self._responder = device, keys, rules, responder

    def advance(self, operation: Operation, target: QueuePair, local: Side) -> PageMissing | None:
        """Move bytes until all is done (None) or a page is absent. Raises RemoteRefused."""
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
        ends = [(REQUESTER, local), (RDMA if operation.remote is not None else RECEIVER, remote)]
        for name, end in reversed(ends) if back else ends:
            if end.length <= moved and end.absent is not None:
                return PageMissing(name, end.absent)
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
        """Return the spans of a list, for `limit` bytes; all of it is checked, even behind an absent page."""
        spans: list[tuple[Span, bytes | None]] = []
        absent: Absent | None = None
        length = 0
        for segment in segments:
            size = min(segment.length, limit)
            if size <= 0:
                break
            limit -= size
            if segment.data is not None:
                new: list[tuple[Span, bytes | None]] = [(Span(None, size), segment.data)]
                missing = None
            else:
                reached = self._keys.access(segment.lkey, segment.va, size, user, need, syndrome)
                if self._rules.on_access:
                    part = segment._replace(length=size)
                    write = need in ("lw", "rw", "a")
                    reached = self._rules.access(operation, side, part, write, reached)
                new, missing = [(span, None) for span in reached[0]], reached[1]
            if absent is None:
                spans += new
                length += sum(span.length for span, _ in new)
                absent = missing
        return Side(spans, length, absent)

    def local(self, operation: Operation) -> Side:
        """Return the requester's end. Raises Refused."""
        need = "lw" if operation.opcode in RETURNS else "lr"
        left = operation.length - operation.done
        user, segments = operation.qp.user, operation.rest()
        return self._side(operation, REQUESTER, segments, user, need, cqe.LOCAL_PROTECTION, left)

    def _remote(self, operation: Operation, target: QueuePair, left: int) -> Side:
        try:
            if operation.remote is not None:
                address = operation.remote.address + operation.done & MASK_64
                segment = Segment(operation.remote.rkey, address, left)
                need = "rw" if operation.opcode in WRITES else "rr"
                user = self._responder.remote_user(operation, target)
                return self._side(operation, RDMA, [segment], user, need, cqe.REMOTE_ACCESS, left)
            assert operation.receive is not None
            segments = operation.receive.rest(operation.done)
            user = self._responder.receive_user(operation.receive, target)
            return self._side(operation, RECEIVER, segments, user, "lw", cqe.LOCAL_PROTECTION, left)
        except Refused as refusal:
            if refusal.syndrome == cqe.REMOTE_ACCESS:
                raise RemoteRefused(cqe.REMOTE_ACCESS, 0, refusal.why) from refusal
            raise RemoteRefused(cqe.REMOTE_OPERATION, refusal.syndrome, refusal.why) from refusal

    def _copy(self, source: Side, sink: Side, limit: int) -> int:
        """Move bytes from span to span; return how many."""
        memory, moved = self._device.memory, 0
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
        """Do an atomic of eight bytes, little endian in memory as the driver asks.

        Ref: Linux 7.2 core/main.c handle_hca_cap_atomic.
        """
        assert operation.remote is not None and operation.atomic is not None
        address = operation.remote.address
        if address & 7:
            raise RemoteRefused(cqe.REMOTE_INVALID_REQUEST, 0, f"atomic at {address:#x}")
        if operation.answer is None:
            try:
                word = Segment(operation.remote.rkey, address, 8)
                user = self._responder.remote_user(operation, target)
                remote = self._side(operation, RDMA, [word], user, "a", cqe.REMOTE_ACCESS, 8)
            except Refused as refusal:
                raise RemoteRefused(cqe.REMOTE_ACCESS, 0, refusal.why) from refusal
            if remote.absent is not None:
                return PageMissing(RDMA, remote.absent)
            operation.answer = self._exchange(operation, remote.spans[0][0])
        if local.absent is not None:
            return PageMissing(REQUESTER, local.absent)
        answer = Side([(Span(None, 8), operation.answer)], 8, None)
        self._copy(answer, local, 8)
        operation.done = 8
        return None

    def _exchange(self, operation: Operation, span: Span) -> bytes:
        """Do the atomic in memory; return the value before."""
        assert operation.atomic is not None
        if span.address is None:
            return bytes(8)
        before = self._device.memory.read(span.address, 8)
        (value,) = struct.unpack("<Q", before)
        operand = operation.atomic.swap_add
        if operation.opcode == wqe.ATOMIC_FA:
            self._device.memory.write(span.address, struct.pack("<Q", value + operand & MASK_64))
        elif value == operation.atomic.compare:
            self._device.memory.write(span.address, struct.pack("<Q", operand))
        return before
