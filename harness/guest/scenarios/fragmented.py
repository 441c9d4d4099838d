"""A machine whose free memory is fragmented, as after months of uptime: a driver's large allocations fail.

Some memory of each node is allocated and locked, and half of each aligned block of it is freed: that is what is left to
allocate. All other free memory in larger blocks goes into the rings of packet sockets.
Ref: Linux 7.3 Documentation/admin-guide/sysctl/vm.rst; Documentation/networking/packet_mmap.rst
"""

from __future__ import annotations

import itertools
import os
import socket
import struct
from contextlib import ExitStack, closing
from dataclasses import replace
from pathlib import Path
from typing import Iterator, List, Tuple

from harness.guest.errors import Unsupported
from harness.guest.mm import libc, pagemap
from harness.guest.mm.libc import PAGE_BYTES
from harness.guest.scenarios.registry import scenario
from harness.guest.scenarios.sparse import sparse
from harness.values.case import Case

MAX_ORDER = 4
"""Order (log2 of the number of pages) of the largest free blocks: 64 KiB."""

_VM = Path("/proc/sys/vm")
# Locked pages stay where they are; small free blocks shall not make the kernel reclaim all that it can, or swap.
_SETTINGS = {"compact_unevictable_allowed": "0", "watermark_boost_factor": "0", "swappiness": "0"}
_BUDDIES = Path("/proc/buddyinfo")
_CHUNK_BYTES = 16 << 20
_CHUNKS = 16
# Ref: Linux 7.3 include/uapi/linux/if_packet.h, struct tpacket_req; include/linux/socket.h
_SOL_PACKET, _RX_RING = 263, 5
_RING_FRAME_BYTES = 2048
_RING_BLOCKS = 512
"""No more: their list must not be a large allocation itself."""

_MAX_RINGS = 64


class FragmentedMemory:
    """Keeps free memory fragmented until closed; Unsupported where the kernel does not let it."""

    def __init__(self) -> None:
        self._stack = ExitStack()
        try:
            for name, value in _SETTINGS.items():
                self._set(_VM / name, value)
            for start in self._lock_chunks():
                _free_half(start)
            self.take_large_blocks()
        except BaseException:
            self._stack.close()
            raise

    def close(self) -> None:
        """Free everything and restore the settings."""
        self._stack.close()

    def _set(self, path: Path, value: str) -> None:
        try:
            before = path.read_text()
            path.write_text(value)
        except OSError as error:
            raise Unsupported(f"memory cannot be kept fragmented here: {error}") from error
        self._stack.callback(path.write_text, before)

    def _lock_chunks(self) -> List[int]:
        """Lock memory on each CPU in turn, so of each node; return where the chunks begin.

        A node without small blocks would keep its last large ones, and the rings would get the small ones of others.
        """
        cpus = os.sched_getaffinity(0)
        try:
            return [self._lock_chunk(cpu) for cpu, _ in zip(itertools.cycle(sorted(cpus)), range(_CHUNKS))]
        finally:
            os.sched_setaffinity(0, cpus)

    def _lock_chunk(self, cpu: int) -> int:
        os.sched_setaffinity(0, {cpu})
        start = libc.mmap(0, _CHUNK_BYTES, libc.PROT_READ_WRITE, libc.MAP_PRIVATE | libc.MAP_ANONYMOUS)
        self._stack.callback(libc.munmap, start, _CHUNK_BYTES)
        libc.madvise(start, _CHUNK_BYTES, libc.MADV_NOHUGEPAGE)
        libc.mlock(start, _CHUNK_BYTES)
        return start

    def take_large_blocks(self) -> None:
        """Allocate all large free blocks; to be repeated, since others free some in time."""
        for _ in range(_MAX_RINGS):
            blocks = min(large_blocks(_BUDDIES.read_text()), _RING_BLOCKS)
            if not blocks:
                return
            ring = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
            self._stack.callback(ring.close)
            block_bytes = PAGE_BYTES << (MAX_ORDER + 1)
            frames = blocks * block_bytes // _RING_FRAME_BYTES
            ring.setsockopt(
                _SOL_PACKET, _RX_RING, struct.pack("=4I", block_bytes, blocks, _RING_FRAME_BYTES, frames)
            )
        raise Unsupported(f"{large_blocks(_BUDDIES.read_text())} large blocks of memory stay free")


@scenario("fragmented")
def fragmented(case: Case) -> List[int]:
    """Run the sparse scenario, each round in memory that has just been fragmented again."""
    times: List[int] = []
    with closing(FragmentedMemory()) as memory:
        for _ in range(case.workload.rounds):
            memory.take_large_blocks()
            times += sparse(replace(case, workload=replace(case.workload, rounds=1)))
    return times


def large_blocks(buddyinfo: str) -> int:
    """Count the free blocks of the order after MAX_ORDER in the text of /proc/buddyinfo; ZONE_DMA does not count."""
    count = 0
    for line in buddyinfo.splitlines():
        _, _, rest = line.partition("zone")
        zone, *counts = rest.split()
        if zone != "DMA":
            large = list(enumerate(map(int, counts)))[MAX_ORDER + 1 :]
            count += sum(blocks << (order - MAX_ORDER - 1) for order, blocks in large)
    return count


def halves(frames: List[int]) -> Iterator[Tuple[int, int]]:
    """Yield (first page, number) of the pages to free: the lower half of each aligned block of order MAX_ORDER + 1.

    `frames` are the page frame numbers of the pages.
    """
    first = 0
    while first < len(frames):
        end = first
        while end < len(frames) and not frames[end] >> MAX_ORDER & 1:
            end += 1
        if end > first:
            yield first, end - first
        first = end + 1


def _free_half(start: int) -> None:
    for first, number in halves(pagemap.frames(start, _CHUNK_BYTES // PAGE_BYTES)):
        libc.madvise(start + first * PAGE_BYTES, number * PAGE_BYTES, libc.MADV_DONTNEED_LOCKED)
