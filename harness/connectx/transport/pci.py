"""PCI configuration space, BARs, MSI-X capability.

Ref: PCI Local Bus 3.0 chapter 6, PCI Express Base 4.0 chapter 7, Linux include/uapi/linux/pci_regs.h.
QEMU keeps BAR addresses, the capability list's links and the MSI-X table itself; it asks the card for the rest.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

SIZE = 4096
"""Bytes of PCI Express configuration space; with 256 QEMU takes the device for a conventional one."""

_COMMAND = 0x04
_STATUS = 0x06
_BARS = 0x10
_CAPABILITIES = 0x34
_PM = 0x40
_EXPRESS = 0x60
_MSIX = 0x9C

_MEMORY_64 = 0x4
_PREFETCHABLE = 0x8
_PM_NO_SOFT_RESET = 0x8
_FLR_CAPABLE = 1 << 28
_FLR = 0x8000

MSIX_TABLE = 0x0000
MSIX_PENDING = 0x2000
BAR_MSIX_SIZE = 0x4000
"""BAR2: table and pending bits, in pages of their own."""


@dataclass(frozen=True, slots=True)
class PciIdentity:
    """Identity of a card on the bus."""

    vendor: int = 0x15B3  # Mellanox. Ref: Linux include/linux/pci_ids.h, PCI_VENDOR_ID_MELLANOX
    device: int = 0x1017
    revision: int = 0
    class_code: int = 0x020700  # InfiniBand controller; 0x020000 is Ethernet
    subsystem_vendor: int = 0x15B3
    subsystem: int = 0x0001
    vectors: int = 16
    registers_size: int = 32 << 20
    power_management: bool = True


class ConfigSpace:
    """Configuration space: bytes with write masks.

    `on_flr` is called when the guest starts a function level reset, `on_msix` with the MSI-X control word
    when it is written. With `late_msix` the MSI-X capability is called vendor specific from power-on to the
    first reset: QEMU does not see it then, the guest does (see msix.py for why).
    """

    def __init__(
        self, identity: PciIdentity, on_flr: Callable[[], None] = lambda: None, late_msix: bool = False
    ) -> None:
        self.identity = identity
        self.on_flr = on_flr
        self.on_msix: Callable[[int], None] = lambda control: None
        self._late_msix = late_msix
        self._bytes = bytearray(SIZE)
        self._mask = bytearray(SIZE)
        self.power_on()

    def power_on(self) -> None:
        """Reset to what QEMU is to see first."""
        self.reset()
        if self._late_msix:
            self._put(_MSIX, 1, 0x09)

    @property
    def bar_sizes(self) -> tuple[int, ...]:
        """Sizes of BAR 0 to 5; a 64-bit BAR takes two places."""
        return (self.identity.registers_size, 0, BAR_MSIX_SIZE, 0, 0, 0)

    def reset(self) -> None:
        """Reset to the values that a guest finds first."""
        self._bytes[:] = bytes(SIZE)
        self._mask[:] = bytes(SIZE)
        identity = self.identity
        self._put(0x00, 2, identity.vendor)
        self._put(0x02, 2, identity.device)
        self._put(_COMMAND, 2, 0, mask=0x0547)  # I/O, memory, master, parity, SERR, no INTx
        self._put(_STATUS, 2, 0x0010)  # has capabilities
        self._put(0x08, 4, identity.class_code << 8 | identity.revision)
        self._put(0x0C, 1, 0, mask=0xFF)  # cache line size: the kernel writes it
        self._put(0x2C, 2, identity.subsystem_vendor)
        self._put(0x2E, 2, identity.subsystem)
        self._put(0x3C, 1, 0, mask=0xFF)  # interrupt line; the pin stays 0: no INTx
        self._bar(0, identity.registers_size, _MEMORY_64 | _PREFETCHABLE)
        self._bar(2, BAR_MSIX_SIZE, 0)
        self._capabilities()

    def _capabilities(self) -> None:
        """Write the capability list: power management (optional), PCI Express, MSI-X."""
        first = _PM if self.identity.power_management else _EXPRESS
        self._put(_CAPABILITIES, 1, first)
        if self.identity.power_management:
            self._put(_PM, 2, _EXPRESS << 8 | 0x01)
            self._put(_PM + 2, 2, 0x0003)  # version 3, no PME
            self._put(_PM + 4, 2, _PM_NO_SOFT_RESET, mask=0x0003)
        self._put(_EXPRESS, 2, _MSIX << 8 | 0x10)
        self._put(_EXPRESS + 2, 2, 0x0002)  # version 2, endpoint
        self._put(_EXPRESS + 4, 4, 0x8FC2 | _FLR_CAPABLE)  # 512 byte payloads, long latencies accepted
        self._put(_EXPRESS + 8, 2, 0x2810, mask=0x7FFF)  # bit 15 starts an FLR and always reads 0
        self._put(_EXPRESS + 0xC, 4, 0x0103)  # 8 GT/s, 16 lanes
        self._put(_EXPRESS + 0x10, 2, 0, mask=0x01C3)
        self._put(_EXPRESS + 0x12, 2, 0x0103)
        self._put(_EXPRESS + 0x24, 4, 0x001F)  # completion time-out: all ranges, can be off
        self._put(_EXPRESS + 0x28, 2, 0, mask=0x001F)
        self._put(_EXPRESS + 0x2C, 4, 0x000E)
        self._put(_EXPRESS + 0x30, 2, 0x0003, mask=0x000F)
        self._put(_MSIX, 2, 0x0011)  # the last one
        self._put(_MSIX + 2, 2, self.identity.vectors - 1, mask=0xC000)
        self._put(_MSIX + 4, 4, MSIX_TABLE | 2)
        self._put(_MSIX + 8, 4, MSIX_PENDING | 2)

    def _put(self, offset: int, size: int, value: int, mask: int = 0) -> None:
        self._bytes[offset : offset + size] = value.to_bytes(size, "little")
        self._mask[offset : offset + size] = mask.to_bytes(size, "little")

    def _bar(self, index: int, size: int, kind: int) -> None:
        wide = bool(kind & _MEMORY_64)
        self._put(_BARS + 4 * index, 8 if wide else 4, kind, mask=(1 << (64 if wide else 32)) - size)

    def read(self, offset: int, size: int) -> bytes:
        """Return the bytes at `offset`, which lie within SIZE."""
        return bytes(self._bytes[offset : offset + size])

    def write(self, offset: int, data: bytes) -> None:
        """Store the bits that can be written; start a function level reset on request."""
        for index, byte in enumerate(data, offset):
            mask = self._mask[index]
            self._bytes[index] = self._bytes[index] & ~mask | byte & mask
        control = _EXPRESS + 8
        if offset <= control + 1 < offset + len(data) and data[control + 1 - offset] & _FLR >> 8:
            self.reset()
            self.on_flr()
        if offset <= _MSIX + 3 < offset + len(data):
            self.on_msix(int.from_bytes(self._bytes[_MSIX + 2 : _MSIX + 4], "little"))
