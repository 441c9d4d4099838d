"""Parts of the kernel that we test: their source folders, modules, and the devices that run them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True)
class Part:
    """A folder of the kernel's source, the modules built from it that matter here, and the devices that need them.

    `first` is the file of the part that holds its page-fault path; `newer` are modules that only newer kernels have.
    """

    folder: str
    modules: tuple[str, ...]
    devices: tuple[str, ...]
    first: str
    newer: tuple[str, ...] = ()

    @property
    def every(self) -> tuple[str, ...]:
        """All its modules, of any kernel."""
        return (*self.modules, *self.newer)


_CARDS = ("connectx-5", "connectx-7")

RXE = Part("drivers/infiniband/sw/rxe", ("rdma_rxe",), ("soft-roce",), "rxe_odp.c")
MLX5 = Part("drivers/infiniband/hw/mlx5", ("mlx5_ib",), _CARDS, "odp.c")
CORE = Part(
    "drivers/infiniband/core",
    ("ib_core", "ib_uverbs"),
    ("soft-roce", *_CARDS),
    "umem_odp.c",
    newer=("ib_uverbs_support",),
)
PARTS: tuple[Part, ...] = (RXE, MLX5, CORE)

FOLDERS = {module: part.folder for part in PARTS for module in part.every}

HEADERS = "include/"
"""Changes below it reach every part."""


def touched(files: Iterable[str]) -> tuple[tuple[Part, ...], tuple[str, ...]]:
    """Find the parts that a change of these files affects, and the files that affect none."""
    paths = tuple(files)
    if any(path.startswith(HEADERS) for path in paths):
        parts = PARTS
    else:
        parts = tuple(part for part in PARTS if any(path.startswith(part.folder + "/") for path in paths))
    folders = (*(part.folder + "/" for part in PARTS), HEADERS)
    return parts, tuple(path for path in paths if not path.startswith(folders))
