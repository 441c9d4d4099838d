"""Exact time: what a case answers, it answers again."""

from dataclasses import replace

import pytest

from harness.plan.difference import first_difference
from harness.plan.plan import load
from harness.tests.vm.conftest import CHECKOUT, FULL


def _first_case():
    return next(load(CHECKOUT / "testplans" / "odp-send.toml").cases(("newest",)))


def test_same_case_twice_gives_the_same_answer(session):
    """Mutation: let the guest see the host's clock, or leave the guest's hashes random."""
    record, _ = session.run(_first_case(), twice=True)
    assert (record.verdict, record.reasons) == ("pass", ())
    assert record.environment["clock"] == "exact"
    again, _ = session.run(_first_case())
    assert again.answer == record.answer


@pytest.mark.skipif(not FULL, reason="boots a machine of its own: ODP_FULL=1")
def test_real_time_is_found_out(session):
    """The comparison can fail. Mutation: compare an answer with itself."""
    one, other = (session.run(replace(_first_case(), clock="real"))[0] for _ in range(2))
    assert (one.verdict, other.verdict) == ("pass", "pass")
    assert first_difference(one.answer, other.answer).startswith("elapsed_ns: ")
