"""What a case ran on, as its record says: what is known before a machine is prepared, and what the machine adds."""

from __future__ import annotations

import platform
from collections.abc import Mapping
from pathlib import Path, PurePosixPath

from harness.kernel.packages import Kernel
from harness.machine import payload_disk
from harness.machine.snapshot import Snapshot
from harness.plan.checkout import version
from harness.plan.plan import Planned

PARCEL = "machine.parcel"
"""Modules in the place of the kernel's own, by name: as the machine said, or was to be given."""


def begun(kernel: Kernel, planned: Planned, files: Mapping[str, Path]) -> dict[str, str]:
    """Of a machine that is to be prepared with `files` in its parcel. It may never be: there is no clock yet."""
    modules = sorted(PurePosixPath(name).stem for name in files if PurePosixPath(name).match("modules/*.ko"))
    given = {"parcel": payload_disk.key(files), PARCEL: " ".join(modules)} if modules else {}
    return {
        "kernel": kernel.release,
        "kernel_package": kernel.version,
        "series": planned.kernel,
        "device": planned.case.device,
        "harness": version(),
        "host": platform.node(),
        **given,
    }


def prepared(snapshot: Snapshot, qemu: str, image: str) -> dict[str, str]:
    """Of one that is, with what it said of itself; `qemu` is a version, `image` a digest."""
    facts = {name: fact for name, fact in snapshot.facts.items() if name not in ("kernel", "device")}
    return {
        "clock": snapshot.shape.clock,
        "accelerator": snapshot.shape.accelerator,
        "qemu": qemu,
        "image": image,
        "snapshot": snapshot.key,
        **({"parcel": snapshot.disks.payload.parent.name} if "parcel" in facts else {}),
        **{f"machine.{name}": fact for name, fact in facts.items()},
    }
