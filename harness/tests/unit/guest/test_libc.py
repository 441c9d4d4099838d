"""System calls on this host."""

from harness.guest.mm import libc


def test_drain_lru_needs_no_pages_and_no_privilege():
    """Mutation: pass one page: its null list is an error."""
    libc.drain_lru()
