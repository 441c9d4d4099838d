"""Deregistration under transfers: bytes and statuses afterwards, and the search for the moment."""

import pytest

from harness.guest.mm.libc import PAGE_BYTES
from harness.guest.scenarios import dereg


def test_bytes_neither_old_nor_new_are_foreign():
    """Mutation: accept a page of which any byte is right."""
    old, new = bytes(3 * PAGE_BYTES), b"\1" * (3 * PAGE_BYTES)
    torn = old[:PAGE_BYTES] + new[:100] + old[: 2 * PAGE_BYTES - 100]
    assert dereg.foreign(torn, old, new) == 0
    assert dereg.foreign(torn[:-1] + b"\2", old, new) == 1
    assert dereg.foreign(torn, new, new) == torn.count(0)


def test_statuses_are_those_of_the_deregistered_end():
    """Mutation: allow the remote end's error for the local one."""
    assert "" in dereg.ALLOWED[dereg.LOCAL] and "" in dereg.ALLOWED[dereg.REMOTE]
    assert "IBV_WC_REM_ACCESS_ERR" not in dereg.ALLOWED[dereg.LOCAL]
    assert dereg.QP_ERROR[0] not in dereg.ALLOWED[dereg.REMOTE]
    assert all(dereg.AFTER_DEREG[end] in dereg.ALLOWED[end] for end in (dereg.LOCAL, dereg.REMOTE))


def test_delay_is_narrowed_between_early_and_late():
    """Mutation: swap EARLY and LATE."""
    assert dereg.narrowed(dereg.EARLY, 3.0, 1.0, 4.0) == (3.0, pytest.approx(4.2))
    assert dereg.narrowed(dereg.LATE, 3.0, 1.0, 4.0) == (pytest.approx(0.95), 3.0)
