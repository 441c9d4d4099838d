"""soft-RoCE: rdma_rxe on a dummy network device inside the machine.

All of it is guest software, so a snapshot holds it up and traced, and there is nothing to plug.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path

from harness.host import LocalHost
from harness.kernel.packages import Kernel
from harness.machine.vm import Machine
from harness.values.case import Request
from harness.values.record import DeviceReport
from harness.values.rule import Rule


class SoftRoce:
    """The device; exact time is its default since nothing comes from outside during a case."""

    name = "soft-roce"
    clock = "exact"
    plugged = False
    log = ""

    def prepare(self, number: int) -> Request:
        """Bring the link up and the probes on."""
        return Request(number, "prepare", self.name)

    def firmware_odp(self, kernel: Kernel) -> dict[str, dict[str, tuple[str, ...]]]:
        """It is all driver."""
        return {}

    def scheme(self, kernel: Kernel) -> str:
        """It has no card to tell it."""
        return ""

    @contextlib.contextmanager
    def around(self, host: LocalHost, kernel: Kernel, folder: Path) -> Iterator[SoftRoce]:
        """Nothing is outside the machine."""
        yield self

    def plug(self, machine: Machine) -> None:
        """It is in the snapshot."""

    def arm(self, rules: Sequence[Rule]) -> None:
        """Nobody can tell rxe what to do wrong: plans with rules name emulated cards only."""
        assert not rules

    def check(self) -> None:
        """It cannot die alone."""

    def settle(self) -> None:
        """A case waits for its own."""

    def report(self) -> DeviceReport:
        """rxe has no counters of its own."""
        return DeviceReport()
