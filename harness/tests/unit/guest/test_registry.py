"""The table of scenarios, and the timing of their rounds."""

from types import SimpleNamespace

import pytest

from harness.guest.errors import WorkFailed
from harness.guest.scenarios import SCENARIOS, registry
from harness.guest.scenarios.registry import scenario, timed_rounds
from harness.values.case import OPERATIONS, TRANSFERS, Case, Region, Workload


def case_of(rounds, seconds=0):
    return Case("c", "d", Workload("soak", rounds, Region(1), Region(1), seconds=seconds))


def test_every_operation_is_a_transfer_or_a_scenario():
    """Mutation: leave a module out of scenarios/__init__.py, or an operation out of OPERATIONS."""
    assert set(SCENARIOS) == set(OPERATIONS) - set(TRANSFERS)
    assert all(entry.text == OPERATIONS[name] for name, entry in SCENARIOS.items())


def test_scenario_without_a_sentence_is_an_error():
    """Mutation: register it with an empty text."""
    with pytest.raises(KeyError, match="unheard_of"):
        scenario("unheard_of")(lambda case: [])
    assert "unheard_of" not in SCENARIOS


@pytest.fixture
def clock(monkeypatch):
    """Replace the registry's clock; `clock.sleep(seconds)` advances it."""
    now = SimpleNamespace(ns=5)
    now.monotonic_ns = lambda: now.ns
    now.monotonic = lambda: now.ns / 1e9
    now.sleep = lambda seconds: setattr(now, "ns", now.ns + int(seconds * 1e9))
    monkeypatch.setattr(registry, "time", now)
    return now


def test_each_round_is_timed_from_one_on(clock):
    """Mutation: number from 0; time all rounds together."""
    assert timed_rounds(case_of(3), clock.sleep) == [10**9, 2 * 10**9, 3 * 10**9]


def test_missed_round_is_repeated_and_its_last_try_timed(clock):
    """Mutations: time all tries of a round; go on after the last one missed."""
    missed = iter(["too early"] * 2)

    def one_round(number):
        clock.sleep(1)
        return next(missed, None)

    assert timed_rounds(case_of(1), one_round, max_tries=3) == [10**9]
    with pytest.raises(WorkFailed, match="round 1: 2 tries missed, the last one since too late"):
        timed_rounds(case_of(1), lambda number: "too late", max_tries=2)


def test_rounds_go_on_for_the_given_seconds(clock):
    """Mutation: end after `rounds`."""
    assert len(timed_rounds(case_of(1, seconds=3), lambda number: clock.sleep(0.5))) == 6


def test_times_of_many_rounds_are_thinned_out(monkeypatch):
    """Mutation: keep the first MAX_TIMES only, or all."""
    monkeypatch.setattr(registry, "MAX_TIMES", 10)
    numbers = []
    times = timed_rounds(case_of(100), numbers.append)
    assert len(numbers) == 100 and 5 <= len(times) <= 10
