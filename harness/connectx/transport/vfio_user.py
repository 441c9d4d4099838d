"""Device side of the vfio-user protocol: handle each message.

Nothing that a client or a guest does may end the card: QEMU 11.1 aborts when its device dies. So a message that
makes no sense is answered with an errno, and an exception of the device model becomes a finding.

Ref: QEMU 11.1 docs/interop/vfio-user.rst.
"""

from __future__ import annotations

import errno
import json
import traceback
from collections.abc import Callable
from struct import Struct
from typing import Any, Protocol

from harness.connectx.transport import vfio_messages
from harness.connectx.transport.interrupts import (
    ERROR,
    INDEXES,
    MSIX,
    EventInterrupts,
)
from harness.connectx.transport.memory import (
    READ,
    WRITE,
    MapError,
    Memory,
)
from harness.connectx.transport.msix import MessageInterrupts
from harness.connectx.transport.pci import (
    SIZE,
    ConfigSpace,
)
from harness.connectx.transport.vfio_messages import (
    Command,
    Message,
)

CONFIG = 7
MSIX_BAR = 2
REGIONS = 9
_MAX_MAPS = 4096


class Device(Protocol):
    """A device to serve. Everything is done inside the call; timers run in `tick`."""

    def bar_read(self, bar: int, offset: int, size: int) -> bytes:
        """Return `size` bytes of a BAR; the range is inside it, size and alignment are the client's choice."""

    def bar_write(self, bar: int, offset: int, data: bytes) -> None:
        """Store into a BAR; the range is inside it."""

    def reset(self) -> None:
        """Reset, as after power-on."""

    def detach(self) -> None:
        """Release the guest's memory and interrupts: it is gone."""

    def tick(self) -> float | None:
        """Run the timers that are due; return seconds until the next one, None without any."""


class Refused(Exception):
    """A message is answered with this errno."""

    def __init__(self, number: int, why: str) -> None:
        super().__init__(why)
        self.number = number


Report = Callable[[str, dict[str, Any]], None]


class Answers:
    """Request handlers of one device. `report(kind, details)` gets events and problems."""

    def __init__(
        self,
        device: Device,
        config: ConfigSpace,
        memory: Memory,
        interrupts: EventInterrupts | MessageInterrupts,
        report: Report,
    ) -> None:
        self.device = device
        self.config = config
        self.memory = memory
        self.interrupts = interrupts
        self.msix: MessageInterrupts | None = None
        if isinstance(interrupts, MessageInterrupts):
            self.msix = interrupts
            config.on_msix = interrupts.control
        self.report = report
        self.counters = {"messages": 0, "reads": 0, "writes": 0, "refused": 0, "crashes": 0}
        self._sizes = (*config.bar_sizes, 0, SIZE, 0)
        self._negotiated = False
        self._handlers: dict[int, Callable[[Message], bytes]] = {
            Command.VERSION: self._version,
            Command.DMA_MAP: self._dma_map,
            Command.DMA_UNMAP: self._dma_unmap,
            Command.GET_INFO: self._get_info,
            Command.GET_REGION_INFO: self._get_region_info,
            Command.GET_IRQ_INFO: self._get_irq_info,
            Command.SET_IRQS: self._set_irqs,
            Command.REGION_READ: self._region_read,
            Command.REGION_WRITE: self._region_write,
            Command.REGION_WRITE_MULTI: self._region_write_multi,
            Command.RESET: self._reset,
        }

    def answer(self, message: Message) -> tuple[int, bytes]:
        """Handle a request; return errno (0 when done) and the payload of the reply."""
        self.counters["messages"] += 1
        try:
            handler = self._handlers.get(message.command)
            if handler is None:
                raise Refused(errno.ENOSYS, f"command {message.command}")
            if not self._negotiated and message.command != Command.VERSION:
                raise Refused(errno.EINVAL, "no version agreed yet")
            return 0, handler(message)
        except Refused as refusal:
            self.counters["refused"] += 1
            details = {"command": message.command, "why": str(refusal), "errno": refusal.number}
            self.report("refused", details)
            return refusal.number, b""
        except Exception as problem:
            self.crashed(f"message {message.command}", problem)
            return errno.EIO, b""

    def forget(self) -> None:
        """Detach the device and remove maps and interrupts: the client is gone. The next one negotiates again."""
        self._negotiated = False
        self.guard("detach", self.device.detach)
        self.interrupts.clear()
        self.memory.clear()
        self.config.power_on()

    def crashed(self, what: str, problem: BaseException) -> None:
        """Report an exception of the device model."""
        self.counters["crashes"] += 1
        trace = traceback.format_exception(problem)[-8:]
        why = f"{type(problem).__name__}: {problem}"
        self.report("crash", {"during": what, "why": why, "trace": trace})

    def guard(self, what: str, call: Callable[[], Any]) -> Any:
        """Call the device model; return None after reporting an exception of it."""
        try:
            return call()
        except Exception as problem:
            self.crashed(what, problem)
            return None

    def _version(self, message: Message) -> bytes:
        if self._negotiated:
            raise Refused(errno.EINVAL, "a second version message")
        major, minor = _unpack(vfio_messages.VERSION, message)
        if major != 0:
            raise Refused(errno.EINVAL, f"version {major}.{minor}")
        text = message.payload[vfio_messages.VERSION.size :].rstrip(b"\0")
        try:
            if text and not isinstance(json.loads(text), dict):
                raise Refused(errno.EINVAL, "capabilities are not an object")
        except (ValueError, RecursionError) as problem:
            raise Refused(errno.EINVAL, f"capabilities: {problem}") from problem
        self._negotiated = True
        # Short on purpose: QEMU takes no answer that is longer than its question.
        capabilities = {
            "capabilities": {"max_msg_fds": vfio_messages.MAX_DESCRIPTORS, "write_multiple": True}
        }
        text = json.dumps(capabilities, separators=(",", ":")).encode()
        return vfio_messages.VERSION.pack(0, 0) + text + b"\0"

    def _dma_map(self, message: Message) -> bytes:
        _, flags, offset, address, size = _unpack(vfio_messages.DMA_MAP, message)
        if len(message.descriptors) > 1:
            raise Refused(errno.EINVAL, "several descriptors for one map")
        if len(self.memory.maps) >= _MAX_MAPS:
            raise Refused(errno.ENOSPC, "too many maps")
        descriptor = message.descriptors[0] if message.descriptors else None
        try:
            self.memory.grant(address, size, flags & (READ | WRITE), descriptor, offset)
        except MapError as problem:
            raise Refused(problem.number, str(problem)) from problem
        shared = descriptor is not None
        self.report("map", {"address": address, "size": size, "flags": flags, "shared": shared})
        return b""

    def _dma_unmap(self, message: Message) -> bytes:
        argsz, flags, address, size = _unpack(vfio_messages.DMA_UNMAP, message)
        try:
            count = self.memory.revoke(0, 1 << 64) if flags & 2 else self.memory.revoke(address, size)
        except MapError as problem:
            raise Refused(problem.number, str(problem)) from problem
        if not count and not flags & 2:
            raise Refused(errno.ENOENT, f"{address:#x} is not mapped")
        self.report("unmap", {"address": address, "size": size})
        return vfio_messages.DMA_UNMAP.pack(argsz, flags, address, size)

    def _get_info(self, message: Message) -> bytes:
        return vfio_messages.INFO.pack(vfio_messages.INFO.size, 3, REGIONS, INDEXES)

    def _get_region_info(self, message: Message) -> bytes:
        _, _, index, _, _, _ = _unpack(vfio_messages.REGION_INFO, message)
        if index >= REGIONS:
            raise Refused(errno.EINVAL, f"region {index}")
        size = self._sizes[index]
        return vfio_messages.REGION_INFO.pack(
            vfio_messages.REGION_INFO.size, 3 if size else 0, index, 0, size, 0
        )

    def _get_irq_info(self, message: Message) -> bytes:
        _, _, index, _ = _unpack(vfio_messages.IRQ_INFO, message)
        if index >= INDEXES:
            raise Refused(errno.EINVAL, f"interrupt index {index}")
        # An error interrupt is stated and never raised: without one QEMU warns of missing error recovery.
        own = self.interrupts.count if self.msix is None else 0
        count = {MSIX: own, ERROR: 1}.get(index, 0)
        return vfio_messages.IRQ_INFO.pack(vfio_messages.IRQ_INFO.size, 9 if count else 0, index, count)

    def _set_irqs(self, message: Message) -> bytes:
        _, flags, index, start, count = _unpack(vfio_messages.SET_IRQS, message)
        data = message.payload[vfio_messages.SET_IRQS.size :]
        if isinstance(self.interrupts, MessageInterrupts):
            return b""  # for the error and request indexes; their descriptors are closed
        try:
            self.interrupts.set(flags, index, start, count, data, message.descriptors)
        except ValueError as problem:
            raise Refused(errno.EINVAL, str(problem)) from problem
        return b""

    def _check_range(self, offset: int, region: int, count: int) -> None:
        """Refuse a range that is not inside its region."""
        if region >= REGIONS or count > vfio_messages.MAX_TRANSFER or offset + count > self._sizes[region]:
            raise Refused(errno.EINVAL, f"{count} bytes at {offset:#x} of region {region}")

    def _region_read(self, message: Message) -> bytes:
        offset, region, count = _unpack(vfio_messages.REGION, message)
        self._check_range(offset, region, count)
        self.counters["reads"] += 1
        if region == CONFIG:
            data = self.config.read(offset, count)
        elif region == MSIX_BAR and self.msix is not None:
            data = self.msix.read(offset, count)
        else:
            try:
                data = self.device.bar_read(region, offset, count)
            except Exception as problem:
                self.crashed(f"read of BAR{region} {offset:#x}", problem)
                data = b""
        if len(data) != count:  # as on a bus without an answer
            data = b"\xff" * count
        return vfio_messages.REGION.pack(offset, region, count) + data

    def _region_write(self, message: Message) -> bytes:
        offset, region, count = _unpack(vfio_messages.REGION, message)
        data = message.payload[vfio_messages.REGION.size : vfio_messages.REGION.size + count]
        self._write(offset, region, count, data)
        return vfio_messages.REGION.pack(offset, region, count)

    def _write(self, offset: int, region: int, count: int, data: bytes) -> None:
        self._check_range(offset, region, count)
        if len(data) != count:
            raise Refused(errno.EINVAL, f"{len(data)} bytes for a write of {count}")
        self.counters["writes"] += 1
        if region == CONFIG:
            self.config.write(offset, data)
            return
        if region == MSIX_BAR and self.msix is not None:
            self.msix.write(offset, data)
            return
        try:
            self.device.bar_write(region, offset, data)
        except Exception as problem:
            self.crashed(f"write to BAR{region} {offset:#x}", problem)

    def _region_write_multi(self, message: Message) -> bytes:
        (count,) = _unpack(vfio_messages.WRITE_COUNT, message)
        if (
            not count
            or count * vfio_messages.WRITE_ONE.size > len(message.payload) - vfio_messages.WRITE_COUNT.size
        ):
            raise Refused(errno.EINVAL, f"{count} writes in {len(message.payload)} bytes")
        for index in range(count):
            offset, region, size, data = vfio_messages.WRITE_ONE.unpack_from(
                message.payload, vfio_messages.WRITE_COUNT.size + index * vfio_messages.WRITE_ONE.size
            )
            self._write(offset, region, size, data[:size])
        return vfio_messages.WRITE_COUNT.pack(count)

    def _reset(self, message: Message) -> bytes:
        self.config.reset()
        self.reset("bus")
        return b""

    def reset(self, by: str) -> None:
        """Reset everything but the configuration space."""
        if self.msix is not None:
            self.msix.reset()
        self.report("reset", {"by": by})
        self.guard("reset", self.device.reset)


def _unpack(layout: Struct, message: Message) -> tuple[int, ...]:
    """Unpack the fixed part of a payload; Refused when it is too short."""
    if len(message.payload) < layout.size:
        raise Refused(errno.EINVAL, f"{len(message.payload)} bytes for command {message.command}")
    values: tuple[int, ...] = layout.unpack_from(message.payload)
    return values
