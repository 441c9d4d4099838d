"""Swap to compressed memory (zram), so that paging out needs no disk."""

from __future__ import annotations

import os
import struct
from pathlib import Path

from harness.guest.mm import libc

SWAP_BYTES = 64 << 20
_ZRAM = Path("/sys/block/zram0/disksize")
_ZRAM_DEVICE = "/dev/zram0"


def swap_on() -> str:
    """Enable swap on zram unless there is some; return the swap area, or why there is none."""
    areas = Path("/proc/swaps").read_text().splitlines()[1:]
    if areas:
        return " ".join(areas[0].split()[:3])
    try:
        _ZRAM.write_text(str(SWAP_BYTES))
        device = os.open(_ZRAM_DEVICE, os.O_WRONLY)
        try:
            os.write(device, swap_header(SWAP_BYTES))
            os.fsync(device)
        finally:
            os.close(device)
        libc.swapon(_ZRAM_DEVICE)
    except OSError as error:
        return f"none: {error}"
    return f"{_ZRAM_DEVICE} {SWAP_BYTES >> 20} MiB"


def swap_header(size_bytes: int) -> bytes:
    """Return the first page of a swap area. Ref: Linux 7.3 include/linux/swap.h, union swap_header."""
    page = bytearray(libc.PAGE_BYTES)
    struct.pack_into("=III", page, 1024, 1, size_bytes // libc.PAGE_BYTES - 1, 0)
    page[-10:] = b"SWAPSPACE2"
    return bytes(page)
