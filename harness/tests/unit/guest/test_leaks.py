"""Counts that grew."""

from harness.guest import leaks
from harness.values.answer import Leak


def test_only_counts_that_grew_are_leaks():
    """Mutation: compare with != instead of >."""
    before, after = {"QP": 1, "MR": 2}, {"QP": 2, "MR": 1, "PD": 1}
    assert leaks.compare(before, after) == (Leak("QP", 1, 2), Leak("PD", 0, 1))
