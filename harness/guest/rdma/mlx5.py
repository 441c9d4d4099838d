"""mlx5 on this machine: the RDMA device of the card; loading, unloading and binding its driver."""

from __future__ import annotations

import contextlib
import ctypes
import mmap
import os
import subprocess
import time
from pathlib import Path
from typing import Optional

from harness.guest.errors import (
    Unsupported,
    WorkFailed,
)
from harness.guest.mm import libc
from harness.guest.rdma import registration as registrations
from harness.guest.rdma.nldev import (
    Device,
    NlDev,
)

MODULES = ("mlx5_core", "mlx5_ib", "ib_uverbs", "zram")
DRIVER = "mlx5_core"
PROVIDER = "libmlx5.so.1"
# In this order: mlx5_ib uses mlx5_core.
UNLOAD = ("mlx5_ib", "mlx5_core")
REBIND_S = 10.0
_INFINIBAND = Path("/sys/class/infiniband")
_AUXILIARY = Path("/sys/bus/auxiliary")


def find(nldev: NlDev) -> Optional[Device]:
    """Return the RDMA device of the first card bound to mlx5_core, or None."""
    for device in nldev.devices():
        driver = _INFINIBAND / device.name / "device/driver"
        if driver.exists() and os.readlink(driver).endswith("/" + DRIVER):  # noqa: PTH115
            return device
    return None


def wait(nldev: NlDev, timeout_s: float = 60.0) -> Device:
    """Wait until the card's device exists, its port is active, and its driver's probe has returned."""
    deadline = time.monotonic() + timeout_s
    again = time.monotonic() + REBIND_S
    while True:
        device = find(nldev)
        if device is not None and _active(nldev, device) and _has_verbs(device):
            _probed(_INFINIBAND / device.name / "device/power/control")
            return device
        if time.monotonic() > deadline:
            cards = len(list(Path("/sys/bus/pci/drivers/mlx5_core").glob("0*")))
            raise Unsupported(f"no mlx5 RDMA device after {timeout_s:g} s ({cards} cards bound to {DRIVER})")
        if time.monotonic() > again:
            again += REBIND_S
            _bind_again()
        time.sleep(0.01)


def _active(nldev: NlDev, device: Device) -> bool:
    """Wait for its port; return False if the device disappears again (see _bind_again)."""
    try:
        nldev.wait_active(device)
    except TimeoutError:
        raise
    except OSError:
        return False
    return True


def _has_verbs(device: Device) -> bool:
    """Tell whether its character device exists, which is created a little after the device itself."""
    return any((_INFINIBAND / device.name / "device/infiniband_verbs").glob("uverbs*"))


def auxiliary(device: Device) -> str:
    """Return the name of the auxiliary device to which mlx5_ib is bound for this one; "" if it is no card's."""
    pci = (_INFINIBAND / device.name / "device").resolve()
    cards = (card for card in _AUXILIARY.glob("devices/mlx5_core.rdma.*") if card.resolve().parent == pci)
    return next((card.name for card in cards), "")


def bind(card: str, on: bool = True) -> None:
    """Bind mlx5_ib to an auxiliary device, or unbind it."""
    (_AUXILIARY / "drivers/mlx5_ib.rdma" / ("bind" if on else "unbind")).write_text(card)


def _bind_again() -> None:
    """Bind mlx5_ib again to a card whose probe failed.

    Linux 6.1 fails it if a self-test's work requests take more than 100 ms, as they may on a busy host.
    Ref: Linux 6.1 drivers/infiniband/hw/mlx5/mem.c, mlx5_ib_test_wc
    """
    for card in _AUXILIARY.glob("devices/mlx5_core.rdma.*"):
        if not (card / "driver").exists():
            with contextlib.suppress(OSError):
                bind(card.name)


def warm(device: Device, on_demand: bool = True) -> None:
    """Register once: the driver creates its UMR QP and CQ then, on demand its page-fault EQ, too, and keeps them.

    Otherwise they would count as leaks of the first case.
    """
    from pyverbs.device import Context
    from pyverbs.pd import PD

    size = libc.PAGE_BYTES
    memory = mmap.mmap(-1, size)
    start = ctypes.addressof(ctypes.c_char.from_buffer(memory))
    access = registrations.ACCESS_ALL | (registrations.ACCESS_ON_DEMAND if on_demand else 0)
    with Context(name=device.name) as context, PD(context) as pd:
        registration = registrations.register(context.cmd_fd, pd.handle, start, size, start, access)
        registrations.deregister(context.cmd_fd, registration)


def _probed(control: Path) -> None:
    """Wait for the end of the driver's probe: it holds the device's lock, which this write takes.

    The same value is written back. Ref: Linux 7.2 drivers/base/power/sysfs.c, control_store
    """
    if control.exists():
        control.write_text(control.read_text())


def unload() -> None:
    """Unload the driver with modprobe -r; WorkFailed with modprobe's message if it stays."""
    _run("modprobe", "-r", *UNLOAD)
    left = [name for name in UNLOAD if Path(f"/sys/module/{name}").exists()]
    if left:
        raise WorkFailed(f"still loaded: {', '.join(left)}")


def load() -> None:
    """Load the driver."""
    _run("modprobe", "-a", DRIVER, "mlx5_ib")


def _run(*argv: str) -> None:
    done = subprocess.run(argv, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, check=False)
    if done.returncode:
        raise WorkFailed(f"{' '.join(argv)}: {done.stderr.decode(errors='replace').strip()}")
