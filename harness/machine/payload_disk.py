"""A parcel: a small disk whose content may differ between machines that go on from one saved boot.

What is in it when a machine is restored is what the guest finds; modules of ours travel that way. All parcels
have one size, since the saved machine has seen it.
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


def empty(store: Store) -> Path:
    """The parcel with nothing in it: zeros, which take no disk."""

    def make(into: Path) -> None:
        (into / "parcel").touch()
        os.truncate(into / "parcel", SIZE_BYTES)

    return store.built("parcel", f"empty-{SIZE_BYTES >> 20}", make) / "parcel"


def packed(files: Mapping[str, Path], store: Store, host: LocalHost) -> Path:
    """A parcel of these files, by the path that they get; `modules/NAME.ko` replaces the kernel's own.

    SetupError when they do not fit. The same content gives the same file.
    """
    contents = _contents(files)

    def make(into: Path) -> None:
        root = into / "root"
        for name, content in contents:
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            (root / name).write_bytes(content)
        parcel = into / "parcel"
        erofs.pack(host, root, parcel, compressed=False)
        shutil.rmtree(root)
        if parcel.stat().st_size > SIZE_BYTES:
            taken = f"{parcel.stat().st_size >> 20} MiB, a parcel has {SIZE_BYTES >> 20}"
            raise SetupError("the modules do not fit into a machine's parcel", [taken], "strip --strip-debug")
        os.truncate(parcel, SIZE_BYTES)

    return store.built("parcel", _key(contents), make) / "parcel"


def key(files: Mapping[str, Path]) -> str:
    """A digest of what such a parcel holds: the name of the folder of the packed one."""
    return _key(_contents(files))


def _contents(files: Mapping[str, Path]) -> list[tuple[str, bytes]]:
    return sorted((name, path.read_bytes()) for name, path in files.items())


def _key(contents: Sequence[tuple[str, bytes]]) -> str:
    return digest(RECIPE, *(part for pair in contents for part in pair))
