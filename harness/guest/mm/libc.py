"""System calls on addresses, which Python does not offer. errno becomes OSError."""

from __future__ import annotations

import ctypes
import os
from typing import Any, List, Optional, Sequence

PAGE_BYTES = 4096

# Ref: Linux 7.3 include/uapi/asm-generic/mman-common.h and mman.h (x86-64)
PROT_NONE = 0
PROT_READ = 1
PROT_READ_WRITE = 3
MAP_SHARED = 0x1
MAP_PRIVATE = 0x2
MAP_FIXED = 0x10
MAP_ANONYMOUS = 0x20
MAP_NORESERVE = 0x4000
MAP_HUGETLB = 0x40000
MAP_FIXED_NOREPLACE = 0x100000
MADV_DONTNEED = 4
MADV_DONTFORK = 10
MADV_HUGEPAGE = 14
MADV_NOHUGEPAGE = 15
MADV_PAGEOUT = 21
MADV_DONTNEED_LOCKED = 24
MADV_SOFT_OFFLINE = 101
# Ref: Linux 7.3 arch/x86/entry/syscalls/syscall_64.tbl; include/uapi/linux/mempolicy.h
_SYS_MOVE_PAGES = 279
_MPOL_MF_MOVE = 2
_SYS_USERFAULTFD = 323
# Ref: Linux 7.3 include/uapi/linux/bpf.h: enum bpf_cmd, union bpf_attr
_SYS_BPF = 321
_BPF_ENABLE_STATS = 32
_BPF_ATTR_BYTES = 64

_libc: Any = ctypes.CDLL(None, use_errno=True)
_libc.mmap.restype = ctypes.c_void_p
_libc.mmap.argtypes = (
    ctypes.c_void_p,
    ctypes.c_size_t,
    ctypes.c_int,
    ctypes.c_int,
    ctypes.c_int,
    ctypes.c_long,
)
_libc.munmap.argtypes = (ctypes.c_void_p, ctypes.c_size_t)
_libc.mprotect.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
_libc.madvise.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
_libc.mlock.argtypes = (ctypes.c_void_p, ctypes.c_size_t)
_libc.swapon.argtypes = (ctypes.c_char_p, ctypes.c_int)
_libc.mount.argtypes = (ctypes.c_char_p, ctypes.c_char_p, ctypes.c_char_p, ctypes.c_ulong, ctypes.c_void_p)
_MAP_FAILED = ctypes.c_void_p(-1).value


def mmap(address: int, length: int, protection: int, flags: int, fd: int = -1, offset: int = 0) -> int:
    """Call mmap(2); return the address."""
    address = _libc.mmap(address, length, protection, flags, fd, offset)
    if address == _MAP_FAILED:
        raise _error("mmap")
    return int(address or 0)


def munmap(address: int, length: int) -> None:
    """Call munmap(2)."""
    if _libc.munmap(address, length):
        raise _error("munmap")


def mprotect(address: int, length: int, protection: int) -> None:
    """Call mprotect(2)."""
    if _libc.mprotect(address, length, protection):
        raise _error(f"mprotect({protection})")


def madvise(address: int, length: int, advice: int) -> None:
    """Call madvise(2)."""
    if _libc.madvise(address, length, advice):
        raise _error(f"madvise({advice})")


def mlock(address: int, length: int) -> None:
    """Call mlock(2): on return the pages are present, and stay."""
    if _libc.mlock(address, length):
        raise _error("mlock")


def drain_lru() -> None:
    """Make all CPUs flush their per-CPU batches of pages to the LRU lists.

    A page in another CPU's batch is not reclaimed. move_pages(2) of no page does nothing but this.
    Ref: Linux 7.3 mm/migrate.c, do_pages_move(): lru_cache_disable() first.
    """
    move_pages((), 0)


def move_pages(pages: Sequence[int], node: Optional[int]) -> List[int]:
    """Call move_pages(2) for pages of this process; return the node of each, or -errno. Node None only asks."""
    count = len(pages)
    addresses = (ctypes.c_void_p * count)(*pages)
    nodes = None if node is None else (ctypes.c_int * count)(*[node] * count)
    status = (ctypes.c_int * count)()
    if _libc.syscall(_SYS_MOVE_PAGES, 0, ctypes.c_ulong(count), addresses, nodes, status, _MPOL_MF_MOVE) < 0:
        raise _error("move_pages")
    return list(status)


def userfaultfd(flags: int) -> int:
    """Call userfaultfd(2); return the file descriptor."""
    fd = _libc.syscall(_SYS_USERFAULTFD, flags)
    if fd < 0:
        raise _error("userfaultfd")
    return int(fd)


def mount(source: str, target: str, kind: str) -> None:
    """Call mount(2) for a file system without options."""
    if _libc.mount(source.encode(), target.encode(), kind.encode(), 0, None):
        raise _error(f"mount {target}")


def swapon(path: str) -> None:
    """Call swapon(2)."""
    if _libc.swapon(path.encode(), 0):
        raise _error(f"swapon {path}")


def _error(call: str) -> OSError:
    number = ctypes.get_errno()
    return OSError(number, f"{call}: {os.strerror(number)}")


def enable_bpf_statistics() -> int:
    """Make the kernel time all BPF programs until the returned file descriptor is closed."""
    attributes = ctypes.create_string_buffer(_BPF_ATTR_BYTES)
    fd = _libc.syscall(_SYS_BPF, _BPF_ENABLE_STATS, attributes, _BPF_ATTR_BYTES)
    if fd < 0:
        raise _error("bpf(BPF_ENABLE_STATS)")
    return int(fd)
