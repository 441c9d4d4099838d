"""Interrupts of vfio-user: one eventfd per MSI-X vector."""

from __future__ import annotations

import os
from pathlib import Path

MSIX = 2
ERROR = 3
INDEXES = 5
"""INTx, MSI, MSI-X, error, request; this card has MSI-X only."""

_DATA_NONE = 1
_DATA_BOOL = 2
_DATA_EVENTFD = 4
_MASK = 8
_UNMASK = 16
_TRIGGER = 32
_ONE = (1).to_bytes(8, "little")


class EventInterrupts:
    """MSI-X vectors by eventfd. Ref: Linux include/uapi/linux/vfio.h, struct vfio_irq_set."""

    def __init__(self, vectors: int) -> None:
        self.count = vectors
        self.vectors: list[int] = [-1] * vectors
        self.fired = 0
        self.lost = 0

    def fire(self, vector: int) -> None:
        """Raise a vector; one without an eventfd is counted as lost."""
        if not 0 <= vector < len(self.vectors) or self.vectors[vector] < 0:
            self.lost += 1
            return
        self.fired += 1
        try:
            os.write(self.vectors[vector], _ONE)
        except OSError:  # full: the other side has not read for 2^64 - 2 events
            pass

    def set(
        self, flags: int, index: int, start: int, count: int, data: bytes, descriptors: list[int]
    ) -> None:
        """Do one SET_IRQS message; removes the descriptors it keeps from the list. ValueError on nonsense.

        QEMU sends eventfds for the error and request indexes although their count was answered 0: such are
        taken and closed, or they would pass for the memory of the next map.
        """
        if index >= INDEXES:
            raise ValueError(f"interrupt index {index}")
        if index != MSIX:
            return
        if start + count > len(self.vectors):
            raise ValueError(f"vectors {start}+{count} of {len(self.vectors)}")
        if flags & _TRIGGER:
            self._trigger(flags, start, count, data, descriptors)
        elif not flags & (_MASK | _UNMASK):  # QEMU sends neither: it keeps the vector table itself
            raise ValueError(f"interrupt flags {flags:#x}")

    def _trigger(self, flags: int, start: int, count: int, data: bytes, descriptors: list[int]) -> None:
        if flags & _DATA_EVENTFD:
            self._listen(start, count, descriptors)
        elif flags & _DATA_BOOL:
            if len(data) < count:
                raise ValueError(f"{len(data)} flags for {count} vectors")
            for vector in range(count):
                if data[vector]:
                    self.fire(start + vector)
        elif flags & _DATA_NONE:
            if count == 0:
                self.clear()
            for vector in range(start, start + count):
                self.fire(vector)
        else:
            raise ValueError(f"interrupt flags {flags:#x}")

    def _listen(self, start: int, count: int, descriptors: list[int]) -> None:
        if descriptors and len(descriptors) != count:
            raise ValueError(f"{len(descriptors)} descriptors for {count} vectors")
        for descriptor in descriptors:
            if str(Path(f"/proc/self/fd/{descriptor}").readlink()) != "anon_inode:[eventfd]":
                raise ValueError("a descriptor that is no eventfd")
        for index in range(count):
            self._close(start + index)
            if descriptors:
                os.set_blocking(descriptors[index], False)
                self.vectors[start + index] = descriptors[index]
        descriptors.clear()

    def _close(self, vector: int) -> None:
        if self.vectors[vector] >= 0:
            os.close(self.vectors[vector])
            self.vectors[vector] = -1

    def clear(self) -> None:
        """Close all eventfds."""
        for vector in range(len(self.vectors)):
            self._close(vector)
