"""User memory registered by number (umem): DEVX puts its rings and doorbell records there."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import ClassVar

from harness.connectx.object_table import FwObject, ObjectTable
from harness.connectx.objects.queues import Ring
from harness.connectx.status import FirmwareError, Status
from harness.wire.ifc import View

RECORD = 8
"""Bytes of a doorbell record."""


@dataclass(eq=False)
class Umem(FwObject):
    """A umem: its pages as one ring of bytes, and the access bits of all of them."""

    kind: ClassVar[str] = "umem"
    ring: Ring
    access: int


def named(request: View, valid: str) -> tuple[int, int]:
    """Return the number of a ring's umem and the ring's offset in it, which precede the field named `valid`.

    Not every kernel's header names them. Ref: rdma-core 56 tests/mlx5_prm_structs.py, CreateQpIn, CreateCqIn.
    """
    at = request.layout.slot(valid).first
    offset, number = struct.unpack_from(">QI", request.data, at - 12)
    return number, offset


def part(objects: ObjectTable, number: int, offset: int, size: int) -> Ring:
    """Return `size` bytes of a umem from `offset` on; FirmwareError when it does not exist or is too small.

    No finding: both come from a user's program, unseen by the driver.
    """
    umem: Umem | None = objects.table("umem").get(number)
    if umem is None:
        raise FirmwareError(Status.BAD_RES, why=f"no umem {number:#x}")
    if offset + size > umem.ring.size:
        raise FirmwareError(Status.BAD_PARAM, why=f"{size} bytes at {offset} of umem {number:#x}")
    return Ring(umem.ring.pages, umem.ring.shift, umem.ring.offset + offset, size)


def entries(objects: ObjectTable, number: int, offset: int, shift: int, pages: int) -> bytes:
    """Return translation entries for pages of a umem, of `1 << shift` bytes each."""
    ring = part(objects, number, offset, pages << shift)
    umem: Umem = objects.table("umem")[number]
    return struct.pack(f">{pages}Q", *(ring.address(page << shift) | umem.access for page in range(pages)))


def record(objects: ObjectTable, number: int, offset: int) -> int:
    """Return the address of a doorbell record in a umem."""
    return part(objects, number, offset, RECORD).address(0)
