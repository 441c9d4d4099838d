"""Where a sparse region is touched."""

from harness.guest.mm.libc import PAGE_BYTES
from harness.guest.scenarios import sparse


def test_spots_are_at_both_ends_and_across_each_chunk_boundary():
    """Mutation: let a spot begin at the boundary; leave the last one out."""
    length = 3 * sparse.CHUNK_BYTES + 10 * PAGE_BYTES
    boundary = sparse.CHUNK_BYTES // PAGE_BYTES
    last = length // PAGE_BYTES - sparse.SPOT_PAGES
    assert sparse.spots(length) == [0, boundary - 2, 2 * boundary - 2, 3 * boundary - 2, last]
