"""The state of one card: what the modules of this folder share."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Protocol

from harness.connectx.datapath.dma import Transfer
from harness.connectx.datapath.requester import Requester
from harness.connectx.datapath.responder import Responder
from harness.connectx.faults.faults import Faults
from harness.connectx.objects.capabilities import Capabilities
from harness.connectx.objects.firmware_pages import Pages
from harness.connectx.objects.mkeys import Keys
from harness.connectx.objects.qps import QueuePairs
from harness.connectx.objects.queues import (
    Completions,
    Events,
)
from harness.connectx.objects.table import (
    Finding,
    Judge,
)
from harness.connectx.rules.rules import Rules
from harness.connectx.timers import Timers

if TYPE_CHECKING:
    from harness.connectx.card import CardModel
    from harness.wire.ifc import Layouts


class GuestMemory(Protocol):
    """Guest memory by DMA address; `memory.Memory` is one. Raises DmaError for what was not granted."""

    def view(self, address: int, size: int) -> memoryview:
        """The bytes themselves, contiguous in one map."""

    def read(self, address: int, size: int) -> bytes:
        """A copy; may span maps."""

    def write(self, address: int, data: bytes | memoryview) -> None:
        """Store bytes; may span maps."""

    def copy(self, source: int, destination: int, size: int) -> None:
        """Move bytes that the card does not look at; may span maps."""


class Interrupts(Protocol):
    """MSI-X."""

    def fire(self, vector: int) -> None:
        """Ring a vector."""


Log = Callable[[dict[str, Any]], None]


class Hca:
    """Everything of a card behind its registers."""

    def __init__(
        self, model: CardModel, layouts: Layouts, memory: GuestMemory, interrupts: Interrupts, log: Log
    ) -> None:
        self.model, self.layouts = model, layouts
        self.memory, self.interrupts, self.log = memory, interrupts, log
        self.clock: Callable[[], float] = time.monotonic
        self.judge = Judge(self._report)
        self.events = Events(self)
        self.completions = Completions(self)
        self.keys = Keys(self)
        self.qps = QueuePairs(self)
        self.timers = Timers(lambda: self.clock())
        self.faults = Faults(self)
        self.rules = Rules(self)
        self.transfer = Transfer(self)
        self.responder = Responder(self)
        self.requester = Requester(self)
        self.capabilities = Capabilities(model, layouts)
        self.pages = Pages(self)
        self.enabled = False
        self.initialised = False

    def _report(self, finding: Finding) -> None:
        self.log({"what": "finding", **finding.to_json()})

    def ticks(self) -> int:
        """The card's clock, `device_frequency_khz` of its capabilities, 64 bits."""
        return int(self.clock() * 156_250_000) & (1 << 64) - 1

    def reset(self) -> None:
        """As after power-on. Findings stay: they are the run's."""
        self.judge.forget()
        self.capabilities = Capabilities(self.model, self.layouts)
        self.pages = Pages(self)
        self.timers.clear()
        self.faults.clear()
        self.requester.clear()
        self.enabled = self.initialised = False
