"""Command slots and mailboxes in guest memory: read a request, write a reply.

A slot has the first 16 bytes of both messages; the rest lies in chained mailboxes of 512 bytes of data.
Ref: Linux 7.2 core/cmd.c; include/linux/mlx5/device.h struct mlx5_cmd_layout, mlx5_cmd_prot_block.
"""

from __future__ import annotations

from harness.connectx.device import GuestMemory
from harness.wire.bits import Field, Struct

LOG_SLOTS, LOG_STRIDE = 5, 6
SLOTS, STRIDE = 1 << LOG_SLOTS, 1 << LOG_STRIDE
PCI_TRANSPORT = 7
INLINE = 16
MAX_LENGTH = 16 << 20

DELIVERED, BAD_TOKEN, BAD_BLOCK, BAD_IN_LENGTH, BAD_OUT_LENGTH, BAD_DESCRIPTOR = (
    0,
    0x02,
    0x03,
    0x07,
    0x08,
    0x10,
)
"""Delivery status. Ref: Linux 7.2 core/cmd.c, MLX5_CMD_DELIVERY_STAT_*."""


class Slot(Struct, size=STRIDE):
    """An entry of the queue. Ref: Linux 7.2 include/linux/mlx5/device.h, struct mlx5_cmd_layout."""

    type = Field(byte=0, bits=8)
    in_length = Field(byte=4, bits=32)
    in_pointer = Field(byte=8, bits=64)
    out_pointer = Field(byte=48, bits=64)
    out_length = Field(byte=56, bits=32)
    token = Field(byte=60, bits=8)
    status = Field(byte=63, bits=7, shift=1)
    owner = Field(byte=63, bits=1)


class Mailbox(Struct, size=576):
    """A block of a longer message. Ref: Linux 7.2 include/linux/mlx5/device.h, struct mlx5_cmd_prot_block."""

    DATA = 512

    next = Field(byte=560, bits=64)
    number = Field(byte=568, bits=32)
    token = Field(byte=573, bits=8)


class Undelivered(Exception):
    """The message is malformed: `status` is the delivery status, nothing is executed."""

    def __init__(self, status: int, why: str) -> None:
        super().__init__(why)
        self.status = status


def _chain(memory: GuestMemory, pointer: int, length: int, token: int) -> list[memoryview]:
    """Return the data parts of a chain of mailboxes that hold `length` bytes together."""
    parts = []
    number = 0
    while length > 0:
        box = Mailbox(memory.view(pointer & ~0x3F, Mailbox.size))
        if box.token != token:
            raise Undelivered(BAD_TOKEN, f"mailbox {number}: token {box.token:#x}, the slot has {token:#x}")
        if box.number != number:
            raise Undelivered(BAD_BLOCK, f"mailbox {number} says it is {box.number}")
        parts.append(box.data[: min(length, Mailbox.DATA)])
        length -= Mailbox.DATA
        pointer, number = box.next, number + 1
    return parts


def read(memory: GuestMemory, slot: Slot) -> bytearray:
    """Read the request in a slot and its mailboxes. Raises Undelivered, or DmaError for a bad pointer."""
    if slot.type != PCI_TRANSPORT:
        raise Undelivered(BAD_DESCRIPTOR, f"type {slot.type}")
    length = slot.in_length
    if not INLINE // 2 <= length <= MAX_LENGTH:
        raise Undelivered(BAD_IN_LENGTH, f"{length} bytes in")
    if slot.out_length > MAX_LENGTH:
        raise Undelivered(BAD_OUT_LENGTH, f"{slot.out_length} bytes out")
    request = bytearray(slot.data[16 : 16 + min(length, INLINE)])
    if length > INLINE:
        for part in _chain(memory, slot.in_pointer, length - INLINE, slot.token):
            request += part
    return request


def write(memory: GuestMemory, slot: Slot, reply: bytearray) -> None:
    """Write a reply into a slot and its mailboxes; the ownership bit stays the card's."""
    head = min(len(reply), INLINE)
    slot.data[32 : 32 + head] = reply[:head]
    at = INLINE
    if len(reply) > INLINE:
        for part in _chain(memory, slot.out_pointer, len(reply) - INLINE, slot.token):
            part[:] = reply[at : at + len(part)]
            at += len(part)


def finish(slot: Slot, delivery: int) -> None:
    """Return the slot to the driver."""
    slot.data[63] = delivery << 1
