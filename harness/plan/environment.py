"""The environment of a case, for its record: known before a machine is prepared, and added by the machine."""

from __future__ import annotations

import platform
from collections.abc import Mapping
from pathlib import Path, PurePosixPath

from harness.kernel.packages import Kernel
from harness.machine import payload_disk
from harness.machine.snapshot import Snapshot
from harness.plan.checkout import version
from harness.plan.plan import Planned

PAYLOAD = "machine.payload"
"""Names of modules that replace the kernel's own: as the machine reports or, without one, as requested."""


def begun(kernel: Kernel, planned: Planned, files: Mapping[str, Path]) -> dict[str, str]:
    """Describe a machine before it is prepared with `files` on its payload disk; there is no clock yet."""
    modules = sorted(PurePosixPath(name).stem for name in files if PurePosixPath(name).match("modules/*.ko"))
    replaced = {"payload": payload_disk.key(files), PAYLOAD: " ".join(modules)} if modules else {}
    return {
        "kernel": kernel.release,
        "kernel_package": kernel.version,
        "series": planned.kernel,
        "device": planned.case.device,
        "harness": version(),
        "host": platform.node(),
        **replaced,
    }


def prepared(snapshot: Snapshot, qemu: str, image: str) -> dict[str, str]:
    """Describe a prepared machine by its own facts; `qemu` is a version, `image` a digest."""
    facts = {name: fact for name, fact in snapshot.facts.items() if name not in ("kernel", "device")}
    return {
        "clock": snapshot.shape.clock,
        "accelerator": snapshot.shape.accelerator,
        "qemu": qemu,
        "image": image,
        "snapshot": snapshot.key,
        **({"payload": snapshot.disks.payload.parent.name} if "payload" in facts else {}),
        **{f"machine.{name}": fact for name, fact in facts.items()},
    }
