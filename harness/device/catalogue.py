"""All devices by the name that plans call them."""

from __future__ import annotations

from harness.device import Device
from harness.device.emulated import Emulated
from harness.device.soft_roce import SoftRoce
from harness.device.traits import TRAITS
from harness.errors import UsageError

DEVICES: dict[str, Device] = {
    name: Emulated(name) if traits.plugged else SoftRoce() for name, traits in TRAITS.items()
}


def find(name: str) -> Device:
    """Return the device of that name; UsageError with the known ones."""
    if name not in DEVICES:
        raise UsageError(f"unknown device {name!r}", [f"devices: {', '.join(DEVICES)}"])
    return DEVICES[name]
