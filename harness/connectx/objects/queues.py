"""Event and completion queues: rings in guest memory, ownership bit, arming, interrupts.

The driver recognises a new entry by its owner bit, which flips with each pass over the ring; so the byte that
holds it is written last. Ref: Linux 7.2 core/lib/eq.h next_eqe_sw, drivers/infiniband/hw/mlx5/cq.c
get_sw_cqe.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from dataclasses import dataclass
from typing import ClassVar

from harness.connectx.device import DeviceState, GuestMemory
from harness.connectx.findings import Findings
from harness.connectx.object_table import FwObject
from harness.connectx.status import FirmwareError, Status
from harness.wire import cqe, eqe
from harness.wire.bits import Struct
from harness.wire.ifc import View

PAGE_SHIFT = 12
COUNTER_MASK = 0xFFFFFF
"""Consumer and producer counters have 24 bits. Ref: Linux 7.2 include/linux/mlx5/mlx5_ifc.h,
cqc.consumer_counter."""


class Ring:
    """Guest memory described by a list of pages: `size` bytes from `offset` in the first page on."""

    __slots__ = ("offset", "pages", "shift", "size")

    def __init__(self, pages: Iterable[int], shift: int, offset: int, size: int) -> None:
        self.pages = tuple(pages)
        self.shift, self.offset, self.size = shift, offset, size

    def address(self, byte: int) -> int:
        """Return the DMA address of a byte of the ring."""
        byte += self.offset
        return self.pages[byte >> self.shift] + (byte & ((1 << self.shift) - 1))

    def read(self, memory: GuestMemory, byte: int, size: int) -> bytes:
        """Return a copy of bytes of the ring, which may cross its pages."""
        room = (1 << self.shift) - (byte + self.offset & (1 << self.shift) - 1)
        if size <= room:
            return memory.read(self.address(byte), size)
        return memory.read(self.address(byte), room) + self.read(memory, byte + room, size - room)


def ring_of(findings: Findings, pas: memoryview, log_page_size: int, offset: int, size: int) -> Ring:
    """Return the ring of a context's page list; a finding and FirmwareError when the list is too short for it."""
    shift = PAGE_SHIFT + log_page_size
    count = (offset + size + (1 << shift) - 1) >> shift
    if len(pas) < 8 * count:
        findings.report(
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
        """Name the UAR page of its doorbells."""
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
        """Name its EQ and the UAR page of its doorbells."""
        return (("eq", self.eqn), ("uar", self.uar))


DISARMED, ARMED_SOLICITED, ARMED = 0, 1, 2
SOLICITED_ONLY = 1 << 24
"""Bit of the arm word. Ref: Linux 7.2 include/linux/mlx5/cq.h: MLX5_CQ_DB_REQ_NOT_SOL is 1 << 24."""


class Events:
    """Delivery of events to event queues. `first_wins`: of two queues for a type the older one gets it."""

    def __init__(self, device: DeviceState) -> None:
        self._device = device
        self.posted = 0
        self.first_wins = False

    def queue_for(self, event_type: int) -> EventQueue | None:
        """Return the queue for events of a type: the newest whose mask has the bit.

        Real cards' choice between two is not documented.
        """
        queues = self._device.objects.table("eq").values()
        for queue in queues if self.first_wins else reversed(queues):
            if queue.mask >> event_type & 1:
                chosen: EventQueue = queue
                return chosen
        return None

    def post(self, event_type: int, event: Struct, sub_type: int = 0) -> bool:
        """Deliver an event by its type; False when no queue takes it."""
        queue = self.queue_for(event_type)
        if queue is None:
            return False
        event.data[1], event.data[3] = event_type, sub_type
        self.deliver(queue, event.data)
        return True

    def deliver(self, queue: EventQueue, event: memoryview) -> None:
        """Write an entry, owner byte last, and interrupt if armed. A full queue drops it, with a finding."""
        size = 1 << queue.log_size
        if (queue.producer - queue.consumer) & COUNTER_MASK >= size:
            self._device.findings.report(
                "queue-overrun", f"eq {queue.number:#x}", f"{size} entries, none is free"
            )
            return
        address = queue.ring.address((queue.producer & (size - 1)) * eqe.SIZE)
        slot = self._device.memory.view(address, eqe.SIZE)
        slot[:63] = event[:63]
        slot[63] = queue.producer >> queue.log_size & 1
        queue.producer += 1
        self.posted += 1
        self._device.log({"what": "event", "eqn": queue.number, "type": event[1], "sub": event[3]})
        if queue.armed:
            queue.armed = False
            self._device.interrupts.fire(queue.vector)

    def doorbell(self, word: int, arm: bool) -> None:
        """Handle an EQ doorbell: EQ number in bits 31:24, consumer counter below.

        Ref: Linux 7.2 core/lib/eq.h eq_update_ci: 0x40 arms, 0x48 does not.
        """
        queue = self._device.objects.table("eq").get(word >> 24)
        if queue is None:
            self._device.objects.missing("eq", word >> 24, "doorbell")
            return
        queue.consumer = word & COUNTER_MASK
        if arm:
            queue.armed = (queue.producer ^ queue.consumer) & COUNTER_MASK == 0
            if not queue.armed:
                self._device.interrupts.fire(queue.vector)


class Completions:
    """Completion queue entries, and the events of armed queues."""

    def __init__(self, device: DeviceState, events: Events) -> None:
        self._device, self._events = device, events

    def push(self, queue: CompletionQueue, entry: Struct, solicited: bool = False) -> None:
        """Add an entry, owner byte last; an event if the queue is armed for it.

        `solicited` counts for queues armed for solicited completions only; errors always do.
        """
        if queue.broken or not self._room(queue):
            return
        index = queue.producer & ((1 << queue.log_size) - 1)
        address = queue.ring.address(index * queue.entry_size) + queue.entry_size - cqe.SIZE
        slot = self._device.memory.view(address, cqe.SIZE)
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
        """Count the entries that the driver has not consumed, by its doorbell record."""
        consumer = int.from_bytes(self._device.memory.read(queue.record, 4), "big") & COUNTER_MASK
        return (queue.producer - consumer) & COUNTER_MASK

    def _room(self, queue: CompletionQueue) -> bool:
        if queue.overrun_ignored:
            return True
        if self.unread(queue) < 1 << queue.log_size:
            return True
        queue.broken = True
        self._device.findings.report(
            "queue-overrun", f"cq {queue.number:#x}", f"{1 << queue.log_size} entries, none is free"
        )
        self._events.post(eqe.CQ_ERROR, eqe.CqErrorEqe.new(cqn=queue.number, syndrome=1))
        return False

    def _notify(self, queue: CompletionQueue) -> None:
        queue.armed = DISARMED
        events = self._device.objects.table("eq").get(queue.eqn)
        if events is not None:
            self._events.deliver(events, eqe.CompletionEqe.new(cqn=queue.number).data)

    def doorbell(self, word: int, number: int) -> None:
        """Arm a CQ: consumer counter below, bit 24 for solicited completions only.

        Ref: Linux 7.2 include/linux/mlx5/cq.h mlx5_cq_arm.
        """
        queue = self._device.objects.table("cq").get(number & COUNTER_MASK)
        if queue is None:
            self._device.objects.missing("cq", number & COUNTER_MASK, "doorbell")
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
    """Return a copy of a context, kept for queries."""
    return bytearray(view.data[: view.layout.size])
