"""MSI-X by the card itself: the table in BAR2, and messages sent as DMA writes.

QEMU 11.1 aborts when a vfio-user device with MSI-X is unplugged: it takes the pending-bit region off a BAR
that has released it (memory_region_del_subregion, "subregion->container == mr"). A device in which QEMU
finds no MSI-X capability is unplugged cleanly. So `pci.ConfigSpace` calls the capability vendor specific until
the first reset, which comes after QEMU has looked and before the guest does; the guest finds MSI-X, programs
this table, and an interrupt is sent as on the bus: a write of the vector's data to its address.
"""

from __future__ import annotations

import struct
from collections.abc import Callable

from harness.connectx.transport.pci import (
    MSIX_PENDING,
    MSIX_TABLE,
)

_ENTRY = struct.Struct("<QII")  # address, data, control
_MASKED = 1
_MASKED_ALL = 0x4000
_ENABLED = 0x8000

SendMessage = Callable[[int, bytes], None]


class MessageInterrupts:
    """MSI-X table, pending bits, and vectors raised as messages. Ref: PCI Local Bus 3.0, 6.8.2.

    `send(address, data)` writes into the guest without waiting.
    """

    def __init__(self, vectors: int, send: SendMessage) -> None:
        self.count = vectors
        self.fired = 0
        self.lost = 0
        self._send = send
        self._table = bytearray()
        self._pending = 0
        self._control = 0
        self.reset()

    def reset(self) -> None:
        """Mask every vector, clear pending bits."""
        self._table = bytearray(_ENTRY.pack(0, 0, _MASKED) * self.count)
        self._pending = 0
        self._control = 0

    def control(self, value: int) -> None:
        """Set the message control word of the capability."""
        self._control = value
        self._release()

    def read(self, offset: int, size: int) -> bytes:
        """Return bytes of BAR2."""
        pending = self._pending.to_bytes(8 * -(-self.count // 64), "little")
        for start, area in ((MSIX_TABLE, bytes(self._table)), (MSIX_PENDING, pending)):
            if start <= offset < start + len(area):
                return area[offset - start : offset - start + size].ljust(size, b"\0")
        return bytes(size)

    def write(self, offset: int, data: bytes) -> None:
        """Store into BAR2; only the table can be written."""
        start = offset - MSIX_TABLE
        if 0 <= start < len(self._table):
            data = data[: len(self._table) - start]
            self._table[start : start + len(data)] = data
            self._release()

    def fire(self, vector: int) -> None:
        """Raise a vector; one that is masked stays pending, one of a card without MSI-X enabled is lost."""
        if not self._control & _ENABLED or not 0 <= vector < self.count:
            self.lost += 1
            return
        address, data, control = _ENTRY.unpack_from(self._table, vector * _ENTRY.size)
        if control & _MASKED or self._control & _MASKED_ALL:
            self._pending |= 1 << vector
            return
        self.fired += 1
        self._send(address, data.to_bytes(4, "little"))

    def _release(self) -> None:
        """Send what is pending and not masked any more."""
        waiting, self._pending = self._pending, 0
        for vector in range(self.count):
            if waiting >> vector & 1:
                self.fire(vector)

    def clear(self) -> None:
        """Reset when the guest is gone."""
        self.reset()
