"""Recorded life of Debian's drivers (load, port ACTIVE, unload) played against the card, without a VM.

How to record: serve a card with `--log FILE` to a guest that loads and unloads mlx5_core and mlx5_ib once,
with one CPU and without posted writes (so that the guest stands still while the card works); leave out the
notes; keep it as data/probe-SERIES.jsonl.gz. A change in what the card answers shows here as a difference:
look at it, and record again if it is meant.
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
def test_the_card_does_what_it_did(series):
    """Mutation: give QUERY_HCA_VPORT_PKEY another key, or write an EQE's owner bit inverted."""
    outcome, card = play(series)
    assert outcome.accesses > 1000
    assert [str(difference) for difference in outcome.differences[:5]] == []
    assert card.findings() == []
    counters = card.counters()
    assert counters["commands"]["TEARDOWN_HCA"] == counters["commands"]["DISABLE_HCA"] == 1
    assert counters["failed"] == {} and counters["unknown"] == {} and counters["pages"] == 0


def test_a_page_not_returned_is_noticed(monkeypatch):
    """The acceptance's mutation, kept as a test: the card forgets to hand one page back."""
    from harness.connectx.objects.firmware_pages import Pages

    original = Pages.take
    monkeypatch.setattr(Pages, "take", lambda self, limit: original(self, limit)[1:])
    outcome, _ = play("7.3")
    assert outcome.differences
