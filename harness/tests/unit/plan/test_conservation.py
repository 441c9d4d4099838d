"""Conservation check of a card's counters and a trace: losses are reported, allowed differences are not."""

import pytest

from harness.plan.conservation import check
from harness.values.answer import Trace
from harness.values.record import DeviceReport

CARD = {"raised": 5, "resumed": 4, "failed": 1, "dropped": 0, "open": 0, "unknown_resumes": 0}
TRACE = {"events": 5, "works": 5, "resumes": 5}


def problems(card=(), trace=(), scheme="", **more):
    counters = {f"faults.{name}": n for name, n in {**CARD, **dict(card)}.items()}
    return [
        r.text
        for r in check(DeviceReport(counters={**counters, **more}), Trace({**TRACE, **dict(trace)}), scheme)
    ]


def test_equal_counts_give_no_reason():
    assert problems() == []
    assert list(check(DeviceReport(), Trace(TRACE), "")) == []


@pytest.mark.parametrize(
    ("card", "trace", "words"),
    [
        ({"open": 1, "resumed": 3}, {"resumes": 4, "works": 4}, "1 of 5 page faults were never resumed"),
        ({"unknown_resumes": 2}, {"resumes": 7}, "2 resumes of faults that were not open"),
        ({"resumed": 3}, {"resumes": 4}, "5 page faults raised, 4 ended or open"),
        ({}, {"events": 4}, "events read: 4, the card sent 5 events"),
        ({}, {"works": 4}, "works started: 4, the card sent 5 events"),
        ({}, {"queues": 6}, "works queued: 6, the card sent 5 events"),
        ({}, {"resumes": 4}, "resumes: 4 by the driver, 5 at the card"),
        ({"events": 6}, {}, "events read: 5, the card sent 6 events"),
        ({"resumed": 3, "dropped": 1}, {"works": 3, "resumes": 4}, "works without a resume: -1"),
    ],
)
def test_a_lost_fault_is_a_reason_with_all_counters(card, trace, words):
    """Mutation: drop any one comparison of conservation.py."""
    texts = problems(card, trace)
    assert any(words in text for text in texts), texts
    assert all("; ledger: card raised 5" in text for text in texts)


def test_a_work_of_a_destroyed_queue_need_not_resume():
    """A QP was destroyed under its fault. Mutation: allow none, or any number."""
    allowed = {"resumed": 3, "dropped": 1}
    assert problems(allowed, {"resumes": 4}) == []
    assert problems({"resumed": 2, "dropped": 1}, {"resumes": 3}) != []
    injected = {"events": 6, "injected": 1, "injected_open": 1}
    assert problems(injected, {"events": 6, "works": 6}) == []


def test_a_stage_that_is_not_traced_is_not_compared():
    """Mutation: take a missing stage for 0."""
    counters = {f"faults.{name}": n for name, n in CARD.items()}
    assert list(check(DeviceReport(counters=counters), Trace(), "")) == []


def test_the_driver_chooses_the_expected_scheme():
    """Mutation: ignore what the driver chose."""
    chosen = {"odp.memory_scheme": 0}
    assert "expected the memory scheme" in problems(scheme="memory", **chosen)[0]
    assert problems(scheme="transport", **chosen) == []
    assert problems(scheme="memory", **{"odp.memory_scheme": 1}) == []
