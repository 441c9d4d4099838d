"""Registrations given back under transfers: what may be found afterwards, and when to shoot."""

import pytest

from harness.guest.mm.libc import PAGE_BYTES
from harness.guest.scenarios import dereg


def test_bytes_that_are_neither_old_nor_new_are_foreign():
    """Mutation: take a page for good of which any byte is right."""
    old, new = bytes(3 * PAGE_BYTES), b"\1" * (3 * PAGE_BYTES)
    torn = old[:PAGE_BYTES] + new[:100] + old[: 2 * PAGE_BYTES - 100]
    assert dereg.foreign(torn, old, new) == 0
    assert dereg.foreign(torn[:-1] + b"\2", old, new) == 1
    assert dereg.foreign(torn, new, new) == torn.count(0)


def test_a_transfer_whose_memory_is_gone_ends_with_an_error_of_that_end():
    """Mutation: allow the remote end's error for the local one."""
    assert "" in dereg.ENDS[dereg.LOCAL] and "" in dereg.ENDS[dereg.REMOTE]
    assert "IBV_WC_REM_ACCESS_ERR" not in dereg.ENDS[dereg.LOCAL]
    assert dereg.GIVEN_UP[0] not in dereg.ENDS[dereg.REMOTE]
    assert all(dereg.FIRST[end] in dereg.ENDS[end] for end in (dereg.LOCAL, dereg.REMOTE))


def test_the_moment_is_looked_for_between_too_early_and_too_late():
    """Mutation: take what was too early for too late."""
    assert dereg.narrowed(dereg.EARLY, 3.0, 1.0, 4.0) == (3.0, pytest.approx(4.2))
    assert dereg.narrowed(dereg.LATE, 3.0, 1.0, 4.0) == (pytest.approx(0.95), 3.0)
