"""All devices by the name that plans call them."""

from __future__ import annotations

from harness.connectx.card import MODELS
from harness.device import Device
from harness.device.emulated import Emulated
from harness.device.soft_roce import SoftRoce
from harness.errors import UsageError

DEVICES: dict[str, Device] = {"soft-roce": SoftRoce(), **{name: Emulated(name) for name in MODELS}}


def find(name: str) -> Device:
    """The device of that name; UsageError with the known ones."""
    if name not in DEVICES:
        raise UsageError(f"unknown device {name!r}", [f"devices: {', '.join(DEVICES)}"])
    return DEVICES[name]
