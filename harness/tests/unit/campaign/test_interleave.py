"""Runs in turns, until enough is known: of records in the shapes of real ones."""

from types import SimpleNamespace

import numpy as np
import pytest

from harness.campaign import interleave, statistics
from harness.campaign.outcomes import BETTER, CANNOT_TELL, SAME, WORSE
from harness.campaign.runs import SIDES, RegressRequest
from harness.results.record import RunStore
from harness.tests.unit.campaign.test_compare import runs
from harness.tests.unit.results.sample import record


def asked(monkeypatch, tmp_path, *, spread_ns, added_ns, detect):
    """What comes of turns of eight runs a side, and how many there were."""
    told = []

    def answers(session, question, kernel, files, parts, name):
        told.append(name)
        return tuple(
            runs(8, clock="real", spread_ns=spread_ns, added_ns=added_ns * name.startswith("patched"))
        )

    monkeypatch.setattr(interleave, "answers", answers)
    session = SimpleNamespace(say=lambda line: None)
    question = RegressRequest("p.diff", "7.3", (), tmp_path, detect=detect)
    found, before, after, (word,) = interleave.interleaved(session, question, None, {}, {}, ())
    assert len(before) == len(after) == 4 * len(told) and word.startswith("real time: ")
    return found, told


@pytest.mark.parametrize(("added_ns", "verdict"), [(0, SAME), (9000, WORSE), (-900, BETTER)])
def test_turns_end_when_the_wanted_difference_would_show(monkeypatch, tmp_path, added_ns, verdict):
    """Mutations: run one side first; go on to the last turn; judge one turn only."""
    found, told = asked(monkeypatch, tmp_path, spread_ns=1, added_ns=added_ns, detect=0.05)
    assert told == ["base-turn-1", "patched-turn-1"]
    assert found.verdict == verdict


def test_what_would_not_show_is_not_called_the_same(monkeypatch, tmp_path):
    """Mutation: leave the verdict of the comparison as it is."""
    found, told = asked(monkeypatch, tmp_path, spread_ns=900, added_ns=0, detect=0.0001)
    assert len(told) == 2 * interleave.MAX_TURNS
    assert found.verdict == CANNOT_TELL and "0.0% was wanted" in found.changes[0].text


def test_what_is_said_to_show_is_found():
    """Mutation: take half an interval for it, whatever the test wants."""
    draw = np.random.default_rng(1)
    tests, found = 8, 0
    for _ in range(100):
        before, after = draw.normal(1000, 80, 32), draw.normal(1000, 80, 32)
        moved = after + statistics.shows(before, after, tests) * 1000
        found += statistics.significant(statistics.chance(before, moved), tests)
    assert found >= 80


def test_what_ran_on_neither_side_is_not_the_same(tmp_path):
    """A case that fails alike ends both sides. Mutation: say nothing of those behind it."""
    records = [record(number, "fail") for number in range(4)]
    for side in SIDES:
        store = RunStore.create(tmp_path / side, {}, expected=20)
        for each in records:
            store.add(each)
    question = RegressRequest("p.diff", "7.3", (), tmp_path)
    (change,) = interleave.not_run(question, records, records)
    assert change.verdict == CANNOT_TELL and change.text.startswith("16 of 20 runs")
    assert not interleave.not_run(question, records, [record(number, "pass") for number in range(20)])
