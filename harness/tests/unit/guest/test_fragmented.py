"""Pages to free, and free memory in large blocks."""

from harness.guest.scenarios import fragmented

BUDDIES = """\
Node 0, zone      DMA      0      0      0      0      0      1      1      1      0      1      3
Node 0, zone    DMA32    440     92    129     41   1019      0      2      0      0      0      1
"""


def test_large_blocks_are_counted_above_the_order_outside_of_zone_dma():
    """Mutations: count the zone DMA; count blocks, not their pages; begin an order lower."""
    assert fragmented.large_blocks(BUDDIES) == 2 * 2 + 32


def test_lower_half_of_each_aligned_block_is_freed():
    """Mutations: free the upper half; forget the last run."""
    half = 1 << fragmented.MAX_ORDER
    frames = [*range(half, 3 * half), 7, 5 * half, 6 * half]
    assert list(fragmented.halves(frames)) == [(half, half + 1), (2 * half + 2, 1)]
    assert list(fragmented.halves([half])) == []
