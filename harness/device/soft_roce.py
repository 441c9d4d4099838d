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
    """rdma_rxe; its clock is exact by default since nothing comes from outside during a case."""

    name = "soft-roce"
    clock = "exact"
    plugged = False
    log = ""

    def prepare(self, number: int) -> Request:
        """Bring the link up and the probes on."""
        return Request(number, "prepare", self.name)

    def firmware_odp(self, kernel: Kernel) -> dict[str, dict[str, tuple[str, ...]]]:
        """Return nothing: it has no firmware."""
        return {}

    def scheme(self, kernel: Kernel) -> str:
        """Return nothing: no card reports page faults."""
        return ""

    @contextlib.contextmanager
    def around(self, host: LocalHost, kernel: Kernel, folder: Path) -> Iterator[SoftRoce]:
        """Yield itself: nothing is outside the machine."""
        yield self

    def plug(self, machine: Machine) -> None:
        """Do nothing: it is in the snapshot."""

    def arm(self, rules: Sequence[Rule]) -> None:
        """Refuse rules: plans with rules name emulated cards only."""
        assert not rules

    def check(self) -> None:
        """Do nothing: it cannot die alone."""

    def settle(self) -> None:
        """Do nothing: a case waits for its own work."""

    def report(self) -> DeviceReport:
        """Return an empty report: rxe has no counters of its own."""
        return DeviceReport()
