"""Stored cases: what of a record is run again, and what counts as the same end."""

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from harness.errors import UsageError
from harness.plan import replay
from harness.tests.unit.results.sample import record
from harness.values import codec
from harness.values.record import Reason

PLANS = Path(__file__).parents[4] / "testplans"


def kept(verdict="fail", **changes):
    one = record(1, verdict)
    environment = {**one.environment, "series": "7.3", "clock": "exact"}
    return replace(one, plan="odp-write", environment=environment, **changes)


def test_a_record_finds_its_plan_and_its_modules(tmp_path):
    """Mutations: take the plan's first case for the record's; forget the modules."""
    one = kept()
    path = tmp_path / "records" / "001.json"
    path.parent.mkdir()
    path.write_text(codec.dumps(one))
    assert replay.stored(path) == replay.Stored(one, None)
    (tmp_path / "parcel").mkdir()
    assert replay.stored(path).parcel == tmp_path / "parcel"
    planned = replay.planned(one, PLANS)
    assert (planned.case, planned.kernel, planned.clock) == (one.case, "7.3", "exact")
    assert planned.plan.name == "odp-write"
    with pytest.raises(UsageError, match="has no plan odp-gone"):
        replay.planned(replace(one, plan="odp-gone"), PLANS)
    path.write_text("{}")
    with pytest.raises(UsageError, match="is no record"):
        replay.stored(path)


@pytest.mark.parametrize(
    ("again", "said"),
    [
        ({}, ""),
        ({"verdict": "pass", "reasons": ()}, "verdict: fail, now pass"),
        ({"reasons": (Reason("leak", "QP"),)}, "reasons: .*, now leak"),
    ],
)
def test_an_end_is_the_same_or_differs(again, said):
    """Mutations: compare verdicts alone; compare the words of reasons."""
    import re

    one = kept(reasons=(Reason("data", "7 bytes"),))
    session = SimpleNamespace(run=lambda case: (replace(one, **again), None))
    assert re.fullmatch(said, replay.difference(session, one, replay.planned(one, PLANS)))


def test_exact_answers_must_be_equal():
    """Mutation: leave answers out."""
    one = kept()
    other = replace(one, answer=replace(one.answer, elapsed_ns=one.answer.elapsed_ns + 1))
    session = SimpleNamespace(run=lambda case: (other, None))
    assert "elapsed_ns" in replay.difference(session, one, replay.planned(one, PLANS))
    real = replace(one, environment={**one.environment, "clock": "real"})
    assert not replay.difference(session, real, replay.planned(real, PLANS))
