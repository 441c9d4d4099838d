"""Device state: what the parts of a card share. It imports none of them."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, Protocol

from harness.connectx.card import CardModel
from harness.connectx.findings import Finding, Findings
from harness.connectx.object_table import ObjectTable
from harness.connectx.timers import Timers
from harness.wire.ifc import Layouts


class GuestMemory(Protocol):
    """Guest memory by DMA address; `memory.Memory` is one. Raises DmaError for what was not granted."""

    def view(self, address: int, size: int) -> memoryview:
        """Return the bytes themselves, contiguous in one map."""

    def read(self, address: int, size: int) -> bytes:
        """Return a copy; may span maps."""

    def write(self, address: int, data: bytes | memoryview) -> None:
        """Store bytes; may span maps."""

    def copy(self, source: int, destination: int, size: int) -> None:
        """Move bytes that the card does not look at; may span maps."""


class Interrupts(Protocol):
    """MSI-X."""

    def fire(self, vector: int) -> None:
        """Raise a vector."""


Log = Callable[[dict[str, Any]], None]

CLOCK_HZ = 156_250_000
"""Rate of the card's clock, `device_frequency_khz` of its capabilities."""


class DeviceState:
    """State of one card. `log` receives dicts with a "what"; `initialised` lies between INIT_HCA and TEARDOWN_HCA.

    `clock` gives monotonic seconds; a recorder or a replay replaces it.
    """

    def __init__(
        self, model: CardModel, layouts: Layouts, memory: GuestMemory, interrupts: Interrupts, log: Log
    ) -> None:
        self.model, self.layouts = model, layouts
        self.memory, self.interrupts, self.log = memory, interrupts, log
        self.clock: Callable[[], float] = time.monotonic
        self.timers = Timers(lambda: self.clock())
        self.findings = Findings(self._log_finding)
        self.objects = ObjectTable(self.findings)
        self.initialised = False

    def _log_finding(self, finding: Finding) -> None:
        self.log({"what": "finding", **finding.to_json()})

    def ticks(self) -> int:
        """Return the card's clock in ticks of CLOCK_HZ, 64 bits."""
        return int(self.clock() * CLOCK_HZ) & (1 << 64) - 1

    def reset(self) -> None:
        """Drop objects and timers, as after power-on. Findings are kept: they belong to the run."""
        self.objects.clear()
        self.timers.clear()
        self.initialised = False
