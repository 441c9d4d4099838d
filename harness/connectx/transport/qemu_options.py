"""QEMU options for a card."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

ROOT_PORT = "card-port"
"""Id of the root port that `qemu_options` makes; a card is hot-plugged there."""


def device(socket: Path | str, bus: str = ROOT_PORT, posted: bool = True) -> dict[str, Any]:
    """Return the device's properties, for -device or QMP device_add. `posted=False`: every write waits for the card.

    Without posted writes a guest under icount sees each doorbell done in zero guest time.
    """
    properties: dict[str, Any] = {
        "driver": "vfio-user-pci",
        "id": "card",
        "bus": bus,
        "socket": {"type": "unix", "path": str(socket)},
    }
    if not posted:
        properties["x-no-posted-writes"] = True
    return properties


def root_port() -> list[str]:
    """Return a root port for a card, cold or hot plugged.

    The reserve leaves room for its 64-bit BAR: without it the guest finds none and the driver logs "Missing
    registers BAR".
    """
    return ["-device", f"pcie-root-port,id={ROOT_PORT},chassis=63,pref64-reserve=128M"]


def memory(size: str) -> list[str]:
    """Return guest memory that the card can reach: only shared memory comes with file descriptors."""
    return [
        "-machine",
        "q35,memory-backend=card-memory",
        "-m",
        size,
        "-object",
        f"memory-backend-memfd,id=card-memory,size={size},share=on",
    ]


def qemu_options(socket: Path | str, memory_size: str = "1G") -> list[str]:
    """Return the options for a QEMU (10.1 or newer) to start with the card that listens on `socket`."""
    return [*memory(memory_size), *root_port(), "-device", json.dumps(device(socket))]
