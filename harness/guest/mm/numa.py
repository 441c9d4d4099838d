"""The machine's two memory nodes: pages that move from one to the other."""

from __future__ import annotations

from typing import Sequence

from harness.guest.mm import libc

NODES = (0, 1)


def move(pages: Sequence[int]) -> None:
    """Move the pages (addresses) to the node where the first of them is not; OSError if one stays."""
    here = libc.move_pages(pages[:1], None)[0]
    if here not in NODES:
        raise OSError(-here, f"page {pages[0]:#x} is on no node")
    there = NODES[1 - here]
    left = [place for place in libc.move_pages(pages, there) if place != there]
    if left:
        raise OSError(max(0, -left[0]), f"{len(left)} of {len(pages)} pages did not move to node {there}")
