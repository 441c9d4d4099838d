"""An emulated ConnectX card as a device of plans."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

from harness.device.capabilities import chosen, stated
from harness.device.card_process import LOG, Card, layouts_cache
from harness.device.traits import TRAITS
from harness.host import LocalHost
from harness.kernel.packages import Kernel
from harness.values.case import Request
from harness.wire import ifc

FAMILY = "connectx"


class Emulated:
    """A card of one model, plugged into a machine after the restore."""

    log = LOG

    def __init__(self, model: str) -> None:
        self.name = model
        self.clock, self.plugged = TRAITS[model].clock, TRAITS[model].plugged

    def prepare(self, number: int) -> Request:
        """Load the drivers; there is no card yet, so one snapshot serves all models."""
        return Request(number, "prepare", FAMILY)

    def firmware_odp(self, kernel: Kernel) -> dict[str, dict[str, tuple[str, ...]]]:
        """Return `stated`; a scheme that this kernel does not know is absent."""
        return stated(self.name, ifc.load(kernel.headers / "include", layouts_cache(kernel)))

    def scheme(self, kernel: Kernel) -> str:
        """Return `chosen`."""
        return chosen(self.firmware_odp(kernel))

    @contextlib.contextmanager
    def around(self, host: LocalHost, kernel: Kernel, folder: Path) -> Iterator[Card]:
        """Run one card process, from before the machine starts to after it has ended."""
        running = Card(self.name, host, kernel, folder)
        try:
            yield running
        finally:
            running.close()
