"""Recorded conversations of Debian's drivers (load, port ACTIVE, unload), replayed without a VM.

How to record: serve a card with `--log FILE` to a guest that loads and unloads mlx5_core and mlx5_ib once,
with one CPU and without posted writes (so that the guest stops while the card works); leave out the
notes; store it as data/probe-SERIES.jsonl.gz. A change of the card's answers is a difference here:
check it, and record again if it is intended.
"""

import pytest

from harness.connectx.conversation.replay import replay
from harness.connectx.firmware import Card
from harness.tests.unit.connectx.driver import DATA, SERIES, layouts


def play(series):
    made = []

    def build(memory, interrupts, note):
        made.append(Card("connectx-5", layouts(series), memory, interrupts, lambda entry: None))
        return made[0]

    return replay(DATA / f"probe-{series}.jsonl.gz", build), made[0]


@pytest.mark.parametrize("series", SERIES)
def test_a_recorded_driver_is_answered_as_recorded(series):
    """Mutation: return another key from QUERY_HCA_VPORT_PKEY, or write an EQE's owner bit inverted."""
    outcome, card = play(series)
    assert outcome.accesses > 1000
    assert [str(difference) for difference in outcome.differences[:5]] == []
    assert card.findings() == []
    counters = card.counters()
    assert counters["commands"]["TEARDOWN_HCA"] == counters["commands"]["DISABLE_HCA"] == 1
    assert counters["failed"] == {} and counters["unknown"] == {} and counters["pages"] == 0


def test_a_page_not_returned_is_a_difference_and_a_finding(monkeypatch):
    """A mutation as a test: the card forgets to return one page."""
    from harness.connectx.objects.firmware_pages import Pages

    original = Pages.take
    monkeypatch.setattr(Pages, "take", lambda self, limit: original(self, limit)[1:])
    outcome, _ = play("7.3")
    assert outcome.differences
