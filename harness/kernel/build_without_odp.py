"""A kernel without on-demand paging: mlx5_ib built again from its source with the option off.

No structure that modules share depends on the option, so it fits the rest of the kernel. ib_core (or ib_uverbs)
keeps its helpers for pages on demand, which nobody calls then, and mlx5_core goes on setting the capability page.
Ref: Linux 6.1 and 7.3, where CONFIG_INFINIBAND_ON_DEMAND_PAGING is asked for
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
    """The module's name and file; Unsupported where the archive has not got the kernel's source."""
    tree = source(kernel, archive)
    with archive.host.ledger.scratch_folder("without") as include:
        # On the command line a macro cannot be taken back: kconfig.h is read behind it.
        (include / HEADER).write_text(f"#undef {OPTION}\n")
        flags = (f"{OPTION}=n", f"KCFLAGS=-include /build/{INCLUDE}/{HEADER}")
        built = build(tree / MLX5.folder, kernel, archive, flags, include)
    (module,) = MLX5.modules
    return module, built.modules[module]
