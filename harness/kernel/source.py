"""Kernel source of exactly a kernel's version, the distribution's or a tree's: the folders that we test.

Ref: package linux-source-SERIES, one archive `usr/src/linux-source-SERIES.tar.xz` with the distribution's own
patches applied.
"""

from __future__ import annotations

import fnmatch
import re
import shutil
from pathlib import Path

from harness.debian import Archive
from harness.errors import SetupError, Unsupported
from harness.kernel.packages import Kernel
from harness.store import digest

RECIPE = 1

PARTS = (
    "drivers/infiniband/core",
    "drivers/infiniband/hw/mlx5",
    "drivers/infiniband/sw/rxe",
    "drivers/net/ethernet/mellanox/mlx5",
    "drivers/net/ethernet/mellanox/mlxfw",
    "include/linux/mlx5",
    "include/rdma",
    "include/uapi/rdma",
    "include/trace/events",
)
"""Folders that are cached. mlx5_core includes files of mlxfw."""

MADE = (".*", "*.o", "*.a", "*.ko", "*.mod", "*.mod.c", "modules.order", "Module.symvers")
"""Files that make and editors leave in a tree."""


def source(kernel: Kernel, archive: Archive) -> Path:
    """Return a read-only folder with PARTS of the kernel's source, from the cache or fetched.

    For a tree of the user it is what the tree has now. Unsupported if the archive has only another version's source.
    """
    if kernel.tree is not None:
        return _of_tree(kernel.tree, kernel, archive)
    series = re.match(r"\d+\.\d+", kernel.release)
    assert series is not None
    name = f"linux-source-{series.group()}"
    package = archive.show(name)
    if package is None or package.version != kernel.version:
        has = f"{name} {package.version}" if package else f"no {name}"
        raise Unsupported(f"no source of kernel {kernel.version}", [f"the archive has {has}"])

    def fetch(into: Path) -> None:
        with archive.host.ledger.scratch_folder("source") as unpacked:
            archive.unpack([name], unpacked)
            packed = next((unpacked / "usr/src").glob("linux-source-*.tar.*"), None)
            if packed is None:
                raise SetupError(f"{name} {kernel.version} holds no source archive")
            patterns = [f"*/{part}/*" for part in PARTS]
            command = ["tar", "-xf", str(packed), "-C", str(into), "--strip-components=1", "--wildcards"]
            archive.host.run([*command, *patterns], timeout_s=1800)
            shutil.rmtree(unpacked / "usr")

    return archive.store.built("source", f"{kernel.release}-{digest(RECIPE, kernel.version, PARTS)}", fetch)


def _of_tree(tree: Path, kernel: Kernel, archive: Archive) -> Path:
    files = {
        str(path.relative_to(tree)): path.read_bytes()
        for part in PARTS
        for path in sorted((tree / part).rglob("*"))
        if path.is_file() and not any(fnmatch.fnmatch(path.name, pattern) for pattern in MADE)
    }

    def copy(into: Path) -> None:
        for name, content in files.items():
            (into / name).parent.mkdir(parents=True, exist_ok=True)
            (into / name).write_bytes(content)

    parts = [part for item in files.items() for part in item]
    return archive.store.built("source", f"{kernel.release}-{digest(RECIPE, *parts)}", copy)
