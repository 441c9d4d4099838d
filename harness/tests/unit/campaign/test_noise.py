"""The noise band of no-op changes, and what more builds confirm."""

from dataclasses import replace
from types import SimpleNamespace

import pytest

from harness.campaign import noise
from harness.campaign.noop_changes import BAND, CONFIRM
from harness.campaign.question import RegressRequest
from harness.campaign.result_cache import KEY
from harness.kernel.subsystems import (
    CORE,
    PARTS,
    RXE,
)
from harness.results.record import write_atomically
from harness.store import Store
from harness.tests.unit.campaign.test_compare import runs
from harness.values.histogram import Histogram
from harness.values.record import Reason


def with_checks(minimum_ns):
    """Return two runs in which the minimum of the stage `checks` takes so long."""
    made = []
    for one in runs(2):
        stage = Histogram("checks", "ns", (0, 0, 0, 2), minimum_ns + 15, minimum_ns, 15)
        trace = replace(one.answer.trace, histograms=(stage,))
        made.append(replace(one, answer=replace(one.answer, trace=trace)))
    return tuple(made)


SESSION = SimpleNamespace(say=lambda line: None)


def baseline(tmp_path, parts=(RXE,), minimum_ns=90):
    request = RegressRequest("q", "7.3", (), tmp_path)
    return noise.Baseline(request, None, tmp_path / "stock", parts, with_checks(minimum_ns))


def confirmed(monkeypatch, tmp_path, run):
    """Confirm +16 instructions; `run` returns the records of each build of `stock` or `tree`."""
    monkeypatch.setattr(noise, "_run", lambda session, request, base, tree, *more: run(tree.name))
    base = baseline(tmp_path)
    bands = noise.noise_bands(SESSION, base)
    return noise.confirm(SESSION, base, tmp_path / "tree", with_checks(106), bands)


@pytest.mark.parametrize(
    ("noop_ns", "confirming_ns", "verdict"),
    [
        ((90,) * 10, (106, 107, 106), "regression"),
        ((90,) * 10, (106, 90, 106), "no difference"),
        ((90,) * 10, (74, 74, 74), "no difference"),
        ((90,) * 9 + (96,), (106, 106, 106), "no difference"),
    ],
    ids=["moved", "not in one build", "the other way", "within a band of more builds"],
)
def test_a_metric_that_moves_in_one_build_only_is_dismissed(
    tmp_path, monkeypatch, noop_ns, confirming_ns, verdict
):
    """Mutations: make one build only; take a move the other way for a move; do not widen the band; count no builds."""
    builds = {"stock": iter(noop_ns), "tree": iter(confirming_ns)}
    confirmation = confirmed(monkeypatch, tmp_path, lambda name: with_checks(next(builds[name])))
    differences = confirmation.comparison.differences
    assert confirmation.comparison.verdict == verdict
    assert [each.confirmed_builds for each in differences] == [3] * (verdict == "regression")
    assert len(confirmation.dismissed) == (verdict == "no difference")
    assert all("other builds of the same source differ as much" in line for line in confirmation.dismissed)


def test_a_build_that_fails_contradicts_no_metric(tmp_path, monkeypatch):
    """Mutations: a run without metrics has not moved; forget what failed."""
    reasons = (Reason("console", "KASAN"),)
    broken = tuple(replace(one, verdict="fail", reasons=reasons) for one in with_checks(106))
    confirmation = confirmed(
        monkeypatch, tmp_path, lambda name: broken if name == "tree" else with_checks(90)
    )
    assert confirmation.comparison.verdict == "regression" and not confirmation.dismissed
    differences = confirmation.comparison.differences
    assert [each.outcome for each in differences] == [False, True]
    assert [each.confirmed_builds for each in differences] == [0, 0]
    text = "another build of the patched source fails in 2 of 2 patched runs, in 0 of 2 baseline runs: console: KASAN"
    assert text in differences[1].text


def test_only_parts_whose_devices_ran_make_a_band(tmp_path, monkeypatch):
    """Mutation: change all parts that are built."""
    calls = []
    monkeypatch.setattr(noise, "_run", lambda *arguments: calls.append(arguments[4]) or with_checks(90))
    noise.noise_bands(SESSION, baseline(tmp_path, PARTS))
    assert set(calls) == {RXE, CORE}


@pytest.mark.parametrize("end", ["pass", "error"])
def test_a_band_is_measured_once_for_the_same_records(tmp_path, monkeypatch, end):
    """Mutations: measure again each time; cache that of a build that could not run; that of other records."""
    calls = []
    records = tuple(replace(one, verdict=end) for one in with_checks(95))
    monkeypatch.setattr(noise, "_run", lambda *arguments: calls.append(arguments[5]) or records)
    session = SimpleNamespace(say=lambda line: None, store=Store(tmp_path / "cache"))
    base = baseline(tmp_path)
    for answers in ("one", "other"):
        session.store.built("answers", answers, lambda into: None)
        (tmp_path / "baseline").mkdir(exist_ok=True)
        write_atomically(tmp_path / "baseline" / KEY, answers)
        calls.clear()
        confirmation = [noise.noise_bands(session, base) for _ in range(2)]
        assert confirmation[0] == confirmation[1] and (end == "error" or max(confirmation[0].values()) == 5)
        assert len(calls) == len(BAND) * (1 if end == "pass" else 2)
    noise.noise_bands(session, base, CONFIRM)
    assert calls[-len(CONFIRM) :] == list(CONFIRM)
    session.store.discard("answers", "other")
    calls.clear()
    noise.noise_bands(session, base)
    assert len(calls) == len(BAND), "records that are not cached have no cached band"
    session.store.close()
