"""The machine's two memory nodes: pages that move from one to the other, told to or by the kernel's balancing.

Ref: Linux 7.3 Documentation/admin-guide/sysctl/kernel.rst (numa_balancing), kernel/sched/debug.c, fair.c.
"""

from __future__ import annotations

import time
from contextlib import ExitStack
from pathlib import Path
from typing import Sequence

from harness.guest import libc
from harness.guest.problems import Unsupported

NODES = (0, 1)
# The first CPU is of node 0: of a process with one thread balancing leaves alone what is there.
FAR = 1
_BALANCING = Path("/proc/sys/kernel/numa_balancing")
_TUNING = Path("/sys/kernel/debug/sched/numa_balancing")
_FAST = {"scan_period_min_ms": "1", "scan_period_max_ms": "10"}
_DEADLINE_S = 20.0


def move(pages: Sequence[int]) -> None:
    """Move the pages (addresses) to the node where the first of them is not; OSError if one stays."""
    here = libc.move_pages(pages[:1], None)[0]
    if here not in NODES:
        raise OSError(-here, f"page {pages[0]:#x} is on no node")
    move_to(pages, NODES[1 - here])


def move_to(pages: Sequence[int], node: int) -> None:
    """Move the pages to a node; OSError if one stays."""
    left = [place for place in libc.move_pages(pages, node) if place != node]
    if left:
        raise OSError(max(0, -left[0]), f"{len(left)} of {len(pages)} pages did not move to node {node}")


def enable_balancing(stack: ExitStack) -> None:
    """The kernel looks where pages are used, as often as it can, until `stack` is closed."""
    try:
        for path, value in [*((_TUNING / name, value) for name, value in _FAST.items()), (_BALANCING, "1")]:
            stack.callback(path.write_text, path.read_text())
            path.write_text(value)
    except OSError as error:
        raise Unsupported(f"no NUMA balancing: {error}") from error


def balance(pages: Sequence[int]) -> None:
    """Put the pages far from the first CPU, and keep one busy until the kernel has marked them to see who uses them."""
    move_to(pages, FAR)
    # The walk over all memory that is under way may have passed these pages.
    wanted, until = _walks() + 2, time.monotonic() + _DEADLINE_S
    while _walks() < wanted:
        if time.monotonic() > until:
            raise TimeoutError("NUMA balancing has not looked at all pages")


def _walks() -> int:
    """How often the kernel has been through all memory of this process."""
    lines = Path("/proc/self/sched").read_text().splitlines()
    return next(int(line.split(":")[1]) for line in lines if line.startswith("mm->numa_scan_seq"))
