"""Build a kernel without on-demand paging: mlx5_ib from its source with the option off.

No structure that modules share depends on the option, so it fits the rest of the kernel. ib_core (or ib_uverbs)
keeps its helpers for on-demand pages, which are not called then, and mlx5_core still sets the capability page.
Ref: Linux 6.1 and 7.3, users of CONFIG_INFINIBAND_ON_DEMAND_PAGING
"""

from __future__ import annotations

from pathlib import Path

from harness.debian import Archive
from harness.kernel.build import INCLUDE, build
from harness.kernel.packages import Kernel
from harness.kernel.source import source
from harness.kernel.subsystems import MLX5

OPTION = "CONFIG_INFINIBAND_ON_DEMAND_PAGING"
HEADER = "without.h"


def without_paging(kernel: Kernel, archive: Archive) -> tuple[str, Path]:
    """Build the module and return its name and file; Unsupported if the archive has no source of the kernel."""
    tree = source(kernel, archive)
    with archive.host.ledger.scratch_folder("without") as include:
        # -U on the command line does not help: kconfig.h is read after it.
        (include / HEADER).write_text(f"#undef {OPTION}\n")
        flags = (f"{OPTION}=n", f"KCFLAGS=-include /build/{INCLUDE}/{HEADER}")
        built = build(tree / MLX5.folder, kernel, archive, flags, include)
    (module,) = MLX5.modules
    return module, built.modules[module]
