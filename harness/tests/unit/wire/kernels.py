"""Kernels to test against: unpacked packages named in ODP_KERNEL_HEADERS (folders, separated by colons).

Each folder holds a headers package (`.../include/linux/mlx5/mlx5_ifc.h`); with the modules and a kernel
image beside it, layouts are also checked against BTF.
"""

import functools
import os
from pathlib import Path

import pytest

from harness.tests.unit.wire.btf import Btf
from harness.wire import ifc

VARIABLE = "ODP_KERNEL_HEADERS"
FOLDERS = [Path(part) for part in os.environ.get(VARIABLE, "").split(":") if part]

each_kernel = pytest.mark.parametrize(
    "kernel",
    [pytest.param(folder, id=folder.name) for folder in FOLDERS]
    or [pytest.param(None, marks=pytest.mark.skip(reason=f"{VARIABLE} names no unpacked kernel headers"))],
)


@functools.cache
def layouts(folder):
    return ifc.load(folder)


@functools.cache
def btf(folder):
    """Read the BTF of mlx5_ib and mlx5_core, or skip."""
    paths = [path for path in folder.rglob("vmlinu[xz]*") if path.is_file() and path.stat().st_size > 1 << 20]
    images = sorted(paths, key=lambda path: path.name != "vmlinux")  # an ELF file needs no unpacking
    modules = [next(folder.rglob(f"{name}.ko*"), None) for name in ("mlx5_ib", "mlx5_core")]
    if not images or None in modules:
        pytest.skip(f"{folder} has no kernel image or no modules")
    base = Btf(images[0])
    return [Btf(module, base) for module in modules]


def structure(folder, name):
    """Look up the members of a kernel structure by dotted path; None if no module's BTF has it."""
    for types in btf(folder):
        if name in types.structures:
            return types.members(name)
    return None
