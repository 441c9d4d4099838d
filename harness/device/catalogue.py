"""All devices by the name that plans call them."""

from __future__ import annotations

from harness.connectx.card import MODELS
from harness.device import Device
from harness.device.emulated import Emulated
from harness.device.soft_roce import SoftRoce

DEVICES: dict[str, Device] = {"soft-roce": SoftRoce(), **{name: Emulated(name) for name in MODELS}}
