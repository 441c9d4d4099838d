"""Give a machine one RDMA device and take it back.

Every device has the same few verbs, so that no other module needs to know which it is: `prepare` readies a machine
for it, `around` is its life around a run, `AttachedDevice.plug` puts it into a machine, `AttachedDevice.report`
returns its report.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from harness.values.case import Request
from harness.values.record import DeviceReport
from harness.values.rule import Rule

if TYPE_CHECKING:
    # The table of devices (traits.py) is read by pure parsers, too.
    from harness.host import LocalHost
    from harness.kernel.packages import Kernel
    from harness.machine.vm import Machine


class AttachedDevice(Protocol):
    """A device in, or on its way into, one machine."""

    def plug(self, machine: Machine) -> None:
        """Put it into a machine that does not run yet, if it is one to plug, and start the machine."""
        ...

    def arm(self, rules: Sequence[Rule]) -> None:
        """Take the injection rules of a case, before it starts; only emulated cards have any."""
        ...

    def check(self) -> None:
        """Raise SetupError if the device died."""
        ...

    def settle(self) -> None:
        """Wait a moment for faults that the driver has not resumed, while the machine still runs."""
        ...

    def report(self) -> DeviceReport:
        """Return what the device saw."""
        ...


class Device(Protocol):
    """One kind of device."""

    name: str
    clock: str
    plugged: bool
    """True if it is plugged into the machine after the restore; such a machine needs RAM that the device can map."""

    log: str
    """The file, of those in a run's folder, that holds its conversation with the driver; empty if it has none."""

    def prepare(self, number: int) -> Request:
        """Return the request that readies a machine for it."""
        ...

    def firmware_odp(self, kernel: Kernel) -> dict[str, dict[str, tuple[str, ...]]]:
        """Return the on-demand paging capabilities that its firmware states to that kernel: words by scheme and row.

        The rows are `general` and the transports. Empty for a device without a firmware.
        """
        ...

    def scheme(self, kernel: Kernel) -> str:
        """Return how it reports page faults to that kernel: one of the schemes of firmware_odp, or nothing."""
        ...

    def around(self, host: LocalHost, kernel: Kernel, folder: Path) -> AbstractContextManager[AttachedDevice]:
        """Start the device before a run and end it after; its files are in `folder`."""
        ...
