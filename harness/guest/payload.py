"""The payload disk: files that the host gave this machine after its boot; most machines have an empty one."""

from __future__ import annotations

import fcntl
import os
import subprocess
from pathlib import Path
from typing import Dict

DISK = Path("/dev/vdc")
MOUNT_POINT = Path("/run/payload")
# Ref: Linux 7.2 fs/erofs/erofs_fs.h, EROFS_SUPER_OFFSET and EROFS_SUPER_MAGIC_V1
_SUPER_OFFSET = 1024
_SUPER_MAGIC = b"\xe2\xe1\xf5\xe0"
# BLKFLSBUF: the disk may differ from the one read before the machine was saved. Ref: Linux 7.2 include/uapi/linux/fs.h
_FLUSH_BUFFERS = 0x1261


def mount_payload() -> Dict[str, str]:
    """Mount the payload disk and replace the kernel's modules by its own; return facts, {} if it is empty.

    RuntimeError if the kernel has no module of that name.
    """
    if MOUNT_POINT.is_dir() or not DISK.exists():
        return {}
    disk = os.open(DISK, os.O_RDONLY)
    try:
        fcntl.ioctl(disk, _FLUSH_BUFFERS, 0)
        formatted = os.pread(disk, len(_SUPER_MAGIC), _SUPER_OFFSET) == _SUPER_MAGIC
    finally:
        os.close(disk)
    if not formatted:
        return {}
    MOUNT_POINT.mkdir()
    _run("mount", "-t", "erofs", "-o", "ro", str(DISK), str(MOUNT_POINT))
    replaced = [_replace(module) for module in sorted((MOUNT_POINT / "modules").glob("*.ko"))]
    return {"payload": " ".join(replaced) or "no modules"}


def _replace(module: Path) -> str:
    root = Path("/lib/modules") / os.uname().release
    for line in (root / "modules.dep").read_text().splitlines():
        path = root / line.split(":")[0]
        if path.name.split(".ko")[0].replace("-", "_") == module.stem:
            _run("mount", "--bind", str(module), str(path))
            return module.stem
    raise RuntimeError(f"this kernel has no module {module.stem}")


def _run(*argv: str) -> None:
    done = subprocess.run(argv, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, check=False)
    if done.returncode:
        raise RuntimeError(f"{' '.join(argv)}: {done.stderr.decode(errors='replace').strip()}")
