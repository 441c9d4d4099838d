"""Gives a machine one RDMA device and takes it back.

Every device has the same few verbs, so that nobody else needs to know which it is: what prepares a machine for
it (`prepare`), what is around a run (`around`), how it comes into a machine (`Presence.plug`) and what it has to
say at the end (`Presence.report`).
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Protocol

from harness.host import LocalHost
from harness.kernel.packages import Kernel
from harness.machine.vm import Machine
from harness.values.case import Request
from harness.values.record import DeviceReport
from harness.values.rule import Rule


class AttachedDevice(Protocol):
    """A device in, or on its way into, one machine."""

    def plug(self, machine: Machine) -> None:
        """Put it into a machine that stands still (if the device is one to plug) and let the machine go on."""
        ...

    def arm(self, rules: Sequence[Rule]) -> None:
        """Take the rules of a case, before it starts; only emulated cards have any."""
        ...

    def check(self) -> None:
        """Raise SetupError if the device died."""
        ...

    def settle(self) -> None:
        """While the machine still runs: wait a moment for what its driver has not finished, if there is anything."""
        ...

    def report(self) -> DeviceReport:
        """What the device saw."""
        ...


class Device(Protocol):
    """One kind of device."""

    name: str
    clock: str
    plugged: bool
    """Whether it comes into the machine after the restore; such a machine needs RAM that the device can map."""

    log: str
    """The file, of those in a run's folder, that holds its conversation with the driver; empty if it has none."""

    def prepare(self, number: int) -> Request:
        """The order that readies a machine for it."""
        ...

    def firmware_odp(self, kernel: Kernel) -> dict[str, dict[str, tuple[str, ...]]]:
        """What its firmware states of on-demand paging to that kernel: words by scheme and row.

        The rows are `general` and the transports. Empty for a device without a firmware.
        """
        ...

    def scheme(self, kernel: Kernel) -> str:
        """How it tells that kernel's driver of page faults: one of firmware_odp's schemes, or nothing."""
        ...

    def around(self, host: LocalHost, kernel: Kernel, folder: Path) -> AbstractContextManager[AttachedDevice]:
        """The device's own life around one run; its files are in `folder`."""
        ...
