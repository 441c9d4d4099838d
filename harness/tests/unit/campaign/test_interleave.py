"""Interleaved runs in real time, from records in the shapes of real ones."""

from types import SimpleNamespace

import numpy as np
import pytest

from harness.campaign import interleave, statistics
from harness.campaign.builds import BuiltModules
from harness.campaign.outcomes import IMPROVEMENT, INCONCLUSIVE, NO_DIFFERENCE, REGRESSION
from harness.campaign.question import SIDES, RegressRequest
from harness.results.record import RunStore
from harness.tests.unit.campaign.test_compare import runs
from harness.tests.unit.results.sample import record


def run_rounds(monkeypatch, tmp_path, *, spread_ns, added_ns, effect):
    """Run rounds of eight runs a side; return the comparison and the names of the runs."""
    names = []

    def run_cases(session, run):
        names.append(run.name)
        added = added_ns * run.name.startswith("patched")
        return tuple(runs(8, clock="real", spread_ns=spread_ns, added_ns=added))

    monkeypatch.setattr(interleave, "run_cases", run_cases)
    session = SimpleNamespace(say=lambda line: None)
    request = RegressRequest("p.diff", "7.3", (), tmp_path, effect=effect)
    side = interleave.Side(tmp_path, BuiltModules({}, "gcc", {}))
    both = interleave.run_both(session, request, interleave.Sides(None, (), side, side))
    (note,) = both.notes
    assert len(both.baseline) == len(both.patched) == 4 * len(names) and note.startswith("real time: ")
    return both.comparison, names


@pytest.mark.parametrize(
    ("added_ns", "verdict"), [(0, NO_DIFFERENCE), (9000, REGRESSION), (-900, IMPROVEMENT)]
)
def test_rounds_end_when_the_effect_is_detectable(monkeypatch, tmp_path, added_ns, verdict):
    """Mutations: run one side first; go on to the last round; compare one round only."""
    comparison, names = run_rounds(monkeypatch, tmp_path, spread_ns=1, added_ns=added_ns, effect=0.05)
    assert names == ["baseline-round-1", "patched-round-1"]
    assert comparison.verdict == verdict


def test_an_effect_that_is_not_detectable_is_inconclusive(monkeypatch, tmp_path):
    """Mutation: leave the verdict of the comparison as it is."""
    comparison, names = run_rounds(monkeypatch, tmp_path, spread_ns=900, added_ns=0, effect=0.0001)
    assert len(names) == 2 * interleave.MAX_ROUNDS
    assert comparison.verdict == INCONCLUSIVE and "0.0% was requested" in comparison.differences[0].text


def test_a_detectable_difference_is_detected():
    """Mutation: take half an interval for it, whatever the test needs."""
    draw = np.random.default_rng(1)
    tests, comparison = 8, 0
    for _ in range(100):
        before, after = draw.normal(1000, 80, 32), draw.normal(1000, 80, 32)
        moved = after + statistics.detectable(before, after, tests) * 1000
        comparison += statistics.significant(statistics.rank_test(before, moved), tests)
    assert comparison >= 80


def test_runs_on_neither_side_are_inconclusive(tmp_path):
    """A case that fails on both sides stops both. Mutation: ignore the cases after it."""
    records = [record(number, "fail") for number in range(4)]
    for side in SIDES:
        store = RunStore.create(tmp_path / side, {}, expected=20)
        for each in records:
            store.add(each)
    request = RegressRequest("p.diff", "7.3", (), tmp_path)
    (difference,) = interleave.not_run(request, records, records)
    assert difference.verdict == INCONCLUSIVE and difference.text.startswith("16 of 20 runs")
    assert not interleave.not_run(request, records, [record(number, "pass") for number in range(20)])
