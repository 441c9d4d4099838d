"""Prepare machines for cases: device up and traced, with the kernel module on the payload disk if a case uses it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from harness.errors import Unsupported
from harness.kernel import config
from harness.kernel.build import build
from harness.kernel.build_without_odp import without_paging
from harness.kernel.packages import Kernel
from harness.machine import payload_disk
from harness.machine.qemu import Shape
from harness.machine.snapshot import MachineFactory, Snapshot
from harness.plan.checkout import find_folder
from harness.values.case import Request
from harness.values.module import ModuleUse

MODULE_FOLDER, MODULE = "kmod", "mlx5_odp_test"
"""The folder of the kernel module's source in the checkout, and the module's name."""


def prepare(
    machines: MachineFactory,
    kernel: Kernel,
    shape: Shape,
    request: Request,
    files: Mapping[str, Path],
    use: ModuleUse | None,
) -> Snapshot:
    """Return a prepared machine with `files` on its payload disk, and the kernel module beside them with `use`."""
    if use is None:
        return machines.prepared(kernel, shape, request, files)
    return _with_module(machines, kernel, shape, request, files, use)


def _with_module(
    machines: MachineFactory,
    kernel: Kernel,
    shape: Shape,
    request: Request,
    files: Mapping[str, Path],
    use: ModuleUse,
) -> Snapshot:
    """Return a prepared machine with the kernel module on its payload disk; build it if the cache has none."""
    archive = machines.archive
    ours = {f"{MODULE}.ko": build(find_folder(MODULE_FOLDER, None), kernel, archive).modules[MODULE]}
    if not use.paging:
        name, path = without_paging(kernel, archive)
        ours[f"modules/{name}.ko"] = path
    if files or not use.paging:
        return machines.prepared(kernel, shape, request, {**files, **ours})
    # It replaces no module of the kernel, so a machine that was saved with an empty disk may find it there.
    snapshot = machines.prepared(kernel, shape, request)
    packed = payload_disk.packed(ours, machines.store, machines.host)
    return replace(snapshot, disks=replace(snapshot.disks, payload=packed))


def check_options(kernel: Kernel, device: str) -> None:
    """Raise Unsupported if the kernel of a tree is built without the driver of the device."""
    lacks = config.lacking_for(device, config.read(kernel.configuration)) if kernel.tree else ()
    if lacks:
        hint = f"{config.commands(lacks)} in {kernel.tree}"
        raise Unsupported(f"{kernel.release} lacks {', '.join(map(str, lacks))}", (), hint)
