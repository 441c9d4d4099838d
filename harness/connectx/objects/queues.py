"""Event and completion queues: rings in guest memory, ownership bit, arming, interrupts.

The driver finds a new entry by its owner bit, which flips with each pass over the ring; so the byte that
holds it is written last. Ref: Linux 7.2 core/lib/eq.h next_eqe_sw, drivers/infiniband/hw/mlx5/cq.c
get_sw_cqe.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from harness.connectx.commands.registry import (
    FirmwareError,
    Status,
)
from harness.connectx.objects.table import FwObject
from harness.wire import cqe, eqe
from harness.wire.bits import Struct

if TYPE_CHECKING:
    from harness.connectx.hca import GuestMemory, Hca
    from harness.wire.ifc import View

PAGE_SHIFT = 12
COUNTER_MASK = 0xFFFFFF
"""Consumer and producer counters have 24 bits. Ref: Linux 7.2 include/linux/mlx5/mlx5_ifc.h,
cqc.consumer_counter."""


class Ring:
    """Guest memory described by a list of pages: `size` bytes that begin `offset` bytes into the first
    page."""

    __slots__ = ("offset", "pages", "shift", "size")

    def __init__(self, pages: Iterable[int], shift: int, offset: int, size: int) -> None:
        self.pages = tuple(pages)
        self.shift, self.offset, self.size = shift, offset, size

    def address(self, byte: int) -> int:
        """DMA address of that byte of the ring."""
        byte += self.offset
        return self.pages[byte >> self.shift] + (byte & ((1 << self.shift) - 1))

    def read(self, memory: GuestMemory, byte: int, size: int) -> bytes:
        """A copy of bytes of the ring, which may cross its pages."""
        room = (1 << self.shift) - (byte + self.offset & (1 << self.shift) - 1)
        if size <= room:
            return memory.read(self.address(byte), size)
        return memory.read(self.address(byte), room) + self.read(memory, byte + room, size - room)


def ring_of(hca: Hca, pas: memoryview, log_page_size: int, offset: int, size: int) -> Ring:
    """The ring of a context's page list; a finding and FirmwareError when the list is too short for it."""
    shift = PAGE_SHIFT + log_page_size
    count = (offset + size + (1 << shift) - 1) >> shift
    if len(pas) < 8 * count:
        hca.judge.find(
            "bad-value", "page list", f"{size} bytes need {count} pages, {len(pas) // 8} are listed"
        )
        raise FirmwareError(Status.BAD_PARAM, why="page list too short")
    pages = (address & ~0xFFF for address in struct.unpack_from(f">{count}Q", pas))
    return Ring(pages, shift, offset, size)


@dataclass(eq=False)
class EventQueue(FwObject):
    """An EQ: `mask` has a bit per event type that comes here, `vector` is the MSI-X vector it rings."""

    kind: ClassVar[str] = "eq"
    ring: Ring
    log_size: int
    mask: int
    vector: int
    uar: int
    context: bytes
    producer: int = 0
    consumer: int = 0
    armed: bool = False

    def refers(self) -> Iterable[tuple[str, int]]:
        """The UAR page its doorbells come through."""
        return (("uar", self.uar),)


@dataclass(eq=False)
class CompletionQueue(FwObject):
    """A CQ: `record` is the address of its doorbell record, `armed` one of the constants below."""

    kind: ClassVar[str] = "cq"
    ring: Ring
    log_size: int
    entry_size: int
    record: int
    eqn: int
    uar: int
    overrun_ignored: bool
    context: bytearray
    producer: int = 0
    armed: int = 0
    last_solicited: int = 0
    broken: bool = False

    def refers(self) -> Iterable[tuple[str, int]]:
        """Its EQ and the UAR page its arming comes through."""
        return (("eq", self.eqn), ("uar", self.uar))


DISARMED, ARMED_SOLICITED, ARMED = 0, 1, 2
SOLICITED_ONLY = 1 << 24
"""Of the arm word. Ref: Linux 7.2 include/linux/mlx5/cq.h: MLX5_CQ_DB_REQ_NOT_SOL is 1 << 24."""


class Events:
    """Delivers events to event queues."""

    def __init__(self, hca: Hca) -> None:
        self._hca = hca
        self.posted = 0
        self.first_wins = False

    def queue_for(self, event_type: int) -> EventQueue | None:
        """The queue that gets such events: the newest whose mask has the bit.

        What a card does with two is not documented; the last one wins here, unless a rule says the first.
        """
        queues = self._hca.judge.table("eq").values()
        for queue in queues if self.first_wins else reversed(queues):
            if queue.mask >> event_type & 1:
                found: EventQueue = queue
                return found
        return None

    def post(self, event_type: int, event: Struct, sub_type: int = 0) -> bool:
        """Deliver an event by its type; False when no queue wants it."""
        queue = self.queue_for(event_type)
        if queue is None:
            return False
        event.data[1], event.data[3] = event_type, sub_type
        self.deliver(queue, event.data)
        return True

    def deliver(self, queue: EventQueue, event: memoryview) -> None:
        """Write an entry, owner byte last, and ring if armed. A full queue loses it, with a finding."""
        size = 1 << queue.log_size
        if (queue.producer - queue.consumer) & COUNTER_MASK >= size:
            self._hca.judge.find("queue-overrun", f"eq {queue.number:#x}", f"{size} entries, none is free")
            return
        address = queue.ring.address((queue.producer & (size - 1)) * eqe.SIZE)
        slot = self._hca.memory.view(address, eqe.SIZE)
        slot[:63] = event[:63]
        slot[63] = queue.producer >> queue.log_size & 1
        queue.producer += 1
        self.posted += 1
        self._hca.log({"what": "event", "eqn": queue.number, "type": event[1], "sub": event[3]})
        if queue.armed:
            queue.armed = False
            self._hca.interrupts.fire(queue.vector)

    def doorbell(self, word: int, arm: bool) -> None:
        """The driver moved its consumer counter: EQ number in bits 31:24, counter below.

        Ref: Linux 7.2 core/lib/eq.h eq_update_ci: 0x40 arms, 0x48 does not.
        """
        queue = self._hca.judge.table("eq").get(word >> 24)
        if queue is None:
            self._hca.judge.missing("eq", word >> 24, "doorbell")
            return
        queue.consumer = word & COUNTER_MASK
        if arm:
            queue.armed = (queue.producer ^ queue.consumer) & COUNTER_MASK == 0
            if not queue.armed:
                self._hca.interrupts.fire(queue.vector)


class Completions:
    """Writes completion queue entries and tells event queues."""

    def __init__(self, hca: Hca) -> None:
        self._hca = hca

    def push(self, queue: CompletionQueue, entry: Struct, solicited: bool = False) -> None:
        """Add an entry, owner byte last; an event if the queue is armed for it.

        `solicited` counts for queues armed for solicited completions only; errors always do.
        """
        if queue.broken or not self._room(queue):
            return
        index = queue.producer & ((1 << queue.log_size) - 1)
        address = queue.ring.address(index * queue.entry_size) + queue.entry_size - cqe.SIZE
        slot = self._hca.memory.view(address, cqe.SIZE)
        slot[:63] = entry.data[:63]
        slot[63] = (entry.data[63] & 0xFE) | (queue.producer >> queue.log_size & 1)
        queue.producer += 1
        if solicited or entry.data[63] >> 4 in (cqe.REQUESTER_ERROR, cqe.RESPONDER_ERROR):
            queue.last_solicited = queue.producer
        elif queue.armed == ARMED_SOLICITED:
            return
        if queue.armed:
            self._notify(queue)

    def unread(self, queue: CompletionQueue) -> int:
        """Entries that the driver has not consumed, by its doorbell record."""
        consumer = int.from_bytes(self._hca.memory.read(queue.record, 4), "big") & COUNTER_MASK
        return (queue.producer - consumer) & COUNTER_MASK

    def _room(self, queue: CompletionQueue) -> bool:
        if queue.overrun_ignored:
            return True
        if self.unread(queue) < 1 << queue.log_size:
            return True
        queue.broken = True
        self._hca.judge.find(
            "queue-overrun", f"cq {queue.number:#x}", f"{1 << queue.log_size} entries, none is free"
        )
        self._hca.events.post(eqe.CQ_ERROR, eqe.CqErrorEqe.new(cqn=queue.number, syndrome=1))
        return False

    def _notify(self, queue: CompletionQueue) -> None:
        queue.armed = DISARMED
        events = self._hca.judge.table("eq").get(queue.eqn)
        if events is not None:
            self._hca.events.deliver(events, eqe.CompletionEqe.new(cqn=queue.number).data)

    def doorbell(self, word: int, number: int) -> None:
        """Arm a CQ: consumer counter below, bit 24 for solicited completions only.

        Ref: Linux 7.2 include/linux/mlx5/cq.h mlx5_cq_arm.
        """
        queue = self._hca.judge.table("cq").get(number & COUNTER_MASK)
        if queue is None:
            self._hca.judge.missing("cq", number & COUNTER_MASK, "doorbell")
            return
        consumer = word & COUNTER_MASK
        solicited_only = bool(word & SOLICITED_ONLY)
        newest = queue.last_solicited if solicited_only else queue.producer
        behind = (newest - consumer) & COUNTER_MASK
        if 0 < behind < 1 << 23:
            self._notify(queue)
        else:
            queue.armed = ARMED_SOLICITED if solicited_only else ARMED


def context_of(view: View) -> bytearray:
    """A copy of a context, kept for queries."""
    return bytearray(view.data[: view.layout.size])
