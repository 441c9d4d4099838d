"""Migration of pages between the two memory nodes of the machine."""

from __future__ import annotations

from typing import Sequence

from harness.guest.mm import libc

NODES = (0, 1)


def move(pages: Sequence[int]) -> None:
    """Move the pages at these addresses to the node where the first of them is not; OSError if one stays."""
    source = libc.move_pages(pages[:1], None)[0]
    if source not in NODES:
        raise OSError(-source, f"page {pages[0]:#x} is on no node")
    target = NODES[1 - source]
    left = [node for node in libc.move_pages(pages, target) if node != target]
    if left:
        raise OSError(max(0, -left[0]), f"{len(left)} of {len(pages)} pages did not move to node {target}")
