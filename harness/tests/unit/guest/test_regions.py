"""Regions that are shared by queues, large, or out of bounds: where they are touched, and what is allowed."""

import pytest

from harness.guest import queues, rights, sparse
from harness.guest.libc import PAGE_BYTES
from harness.guest.registration import ACCESS_LOCAL_WRITE, ACCESS_REMOTE_ATOMIC, ACCESS_REMOTE_WRITE


@pytest.mark.parametrize("length", [1, PAGE_BYTES, 53 * PAGE_BYTES, 53 * PAGE_BYTES + 7])
def test_queues_side_by_side_write_every_byte_once(length):
    """Mutation: begin every queue at the first page."""
    pieces = sorted(piece for mine in queues.side_by_side(length) for piece in mine)
    assert len(queues.side_by_side(length)) == queues.QUEUES
    ends = [at + size for at, size in pieces]
    assert [at for at, _ in pieces] == [0, *ends[:-1]] and ends[-1] == length


def test_a_large_region_is_touched_at_both_ends_and_across_each_seam():
    """Mutation: let a spot begin at the seam; leave the last one out."""
    length = 3 * sparse.SEAM_BYTES + 10 * PAGE_BYTES
    seam = sparse.SEAM_BYTES // PAGE_BYTES
    last = length // PAGE_BYTES - sparse.SPOT_PAGES
    assert sparse.spots(length) == [0, seam - 2, 2 * seam - 2, 3 * seam - 2, last]


def test_sets_of_rights_are_such_as_the_kernel_takes():
    """Mutation: remote writing without local writing."""
    for access in rights.SETS.values():
        assert access & ACCESS_LOCAL_WRITE or not access & (ACCESS_REMOTE_WRITE | ACCESS_REMOTE_ATOMIC)
    for operation in rights.OPERATIONS.values():
        allowing = [access & operation.right for access in rights.SETS.values()]
        assert any(allowing) and not all(allowing)
