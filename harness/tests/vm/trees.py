"""A kernel tree as `make` leaves it, made from the files of a Debian kernel without building one."""

import lzma
import shutil
from pathlib import Path

from harness.kernel.config import read
from harness.kernel.source import PARTS, source
from harness.kernel.toolchain import toolchain

# Modules that a guest may load; their dependencies are added.
MODULES = (
    *("virtio_pci", "virtio_blk", "virtio_console", "erofs", "overlay", "qemu_fw_cfg", "zram", "dummy"),
    *("rdma_rxe", "ib_uverbs", "mlx5_core", "mlx5_ib", "rdma_cm", "rdma_ucm", "lz4", "lzo_rle"),
    *("crc32c_generic", "crc32c_intel", "crc32_generic", "crc32_pclmul", "libcrc32c"),
)


def tree_of(kernel, session, folder, sources=True):
    """Lay out the tree; `sources` are those of the parts that we test, if the archive has them."""
    folder.mkdir()
    (programs,) = (toolchain(kernel, session.archive).root / "usr/lib").glob("linux-kbuild-*")
    for half in (kernel.headers, kernel.build, programs):
        for name in (
            "Makefile",
            ".config",
            "Module.symvers",
            "vmlinux",
            "include",
            "arch",
            "scripts",
            "tools",
        ):
            if (half / name).is_dir():
                shutil.copytree(half / name, folder / name, symlinks=False, dirs_exist_ok=True)
            elif (half / name).is_file():
                shutil.copy2(half / name, folder / name)
    # Debian's own Makefile includes the common one.
    shutil.copy2(kernel.headers / "Makefile", folder / "Makefile")
    (folder / "Kbuild").touch()
    # Debian has some files elsewhere, and some releases are named otherwise than in the source.
    shutil.copy2(folder / "arch/x86/module.lds", folder / "scripts/module.lds")
    (folder / "include/config/kernel.release").write_text(f"{kernel.release}\n")
    (folder / "drivers/infiniband/core").mkdir(parents=True)
    if sources:
        stock = source(kernel, session.archive)
        for part in PARTS:
            shutil.copytree(stock / part, folder / part, dirs_exist_ok=True)
    (folder / "arch/x86/boot").mkdir(parents=True, exist_ok=True)
    shutil.copyfile(kernel.vmlinuz, folder / "arch/x86/boot/bzImage")
    places = list(_modules(kernel))
    for place in places:
        packed = kernel.modules / place
        target = folder / _bare(place)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(
            lzma.decompress(packed.read_bytes()) if packed.suffix == ".xz" else packed.read_bytes()
        )
    order = "".join(f"{_bare(place).with_suffix('.o')}\n" for place in places)
    (folder / "modules.order").write_text(order)
    for name in ("modules.builtin", "modules.builtin.modinfo"):
        shutil.copyfile(kernel.modules / name, folder / name)
    return folder


def set_options(folder, **options):
    """Change a tree's configuration as if it had been built with it; None takes an option out."""
    for name in (".config", "include/config/auto.conf"):
        settings = read((folder / name).read_text()) | options
        lines = (f"CONFIG_{key}={value}" for key, value in settings.items() if value is not None)
        (folder / name).write_text("\n".join(lines) + "\n")


def _bare(place):
    """Return the path of a module in a tree."""
    return Path(place.removeprefix("kernel/").removesuffix(".xz"))


def _modules(kernel):
    needs = dict(line.split(":") for line in (kernel.modules / "modules.dep").read_text().splitlines())
    by_name = {_bare(place).stem.replace("-", "_"): place for place in needs}
    places = {}

    def add(place):
        for need in needs[place].split():
            add(need)
        places[place] = True

    for name in MODULES:
        if name in by_name:
            add(by_name[name])
    return places
