"""The payload disk: hands files to a guest that is restored from a snapshot.

The guest finds the content of the moment of its restore; replaced modules travel that way. All payload disks have one
size, since a saved machine has read it.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

from harness.errors import SetupError
from harness.host import LocalHost
from harness.machine import erofs
from harness.store import Store, digest

RECIPE = 1
SIZE_BYTES = 128 << 20
KIND = "payload"
FILE = "disk"


def empty(store: Store) -> Path:
    """Make the disk without files: zeros, which take no space on the host."""

    def make(into: Path) -> None:
        (into / FILE).touch()
        os.truncate(into / FILE, SIZE_BYTES)

    return store.built(KIND, f"empty-{SIZE_BYTES >> 20}", make) / FILE


def packed(files: Mapping[str, Path], store: Store, host: LocalHost) -> Path:
    """Make a disk of files {path on it: file}; `modules/NAME.ko` replaces the kernel's own.

    SetupError if they do not fit. The same content gives the same file.
    """
    contents = _contents(files)

    def make(into: Path) -> None:
        root = into / "root"
        for name, content in contents:
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            (root / name).write_bytes(content)
        disk = into / FILE
        erofs.pack(host, root, disk, compressed=False)
        shutil.rmtree(root)
        if disk.stat().st_size > SIZE_BYTES:
            taken = f"{disk.stat().st_size >> 20} MiB, the disk has {SIZE_BYTES >> 20}"
            raise SetupError("the files do not fit on the payload disk", [taken], "strip --strip-debug")
        os.truncate(disk, SIZE_BYTES)

    return store.built(KIND, _key(contents), make) / FILE


def key(files: Mapping[str, Path]) -> str:
    """Compute the cache key of the disk with these files: the name of its folder."""
    return _key(_contents(files))


def _contents(files: Mapping[str, Path]) -> list[tuple[str, bytes]]:
    return sorted((name, path.read_bytes()) for name, path in files.items())


def _key(contents: Sequence[tuple[str, bytes]]) -> str:
    return digest(RECIPE, *(part for pair in contents for part in pair))
