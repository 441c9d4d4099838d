"""Answers that are kept by content, and those that are not."""

from dataclasses import replace
from types import SimpleNamespace

import pytest

from harness.campaign import runs
from harness.campaign.runs import Question
from harness.kernel.parts import RXE
from harness.results.record import Store as Results
from harness.store import Store
from harness.tests.unit.results.sample import record


@pytest.fixture
def asked(tmp_path, monkeypatch):
    """Ask a question of verdicts to come; what was run."""
    ran = []
    module = tmp_path / "x.ko"
    module.write_bytes(b"x")

    def ask(verdict="pass", **changes):
        def run(session, question, devices, name, blocks, place, begun):
            ran.append(name)
            results = Results.reopen(place, {}) if begun else Results.create(place, {}, 1)
            results.add(replace(record(1, "pass"), verdict=verdict))
            results.finish()

        monkeypatch.setattr(runs, "_run", run)
        store = Store(tmp_path / "cache")
        try:
            studio = SimpleNamespace(key=lambda *given: "k", shape=lambda clock: clock)
            session = SimpleNamespace(store=store, studio=studio, say=lambda line: None)
            question = replace(Question("q", "7.3", (), tmp_path / f"r{len(ran)}"), **changes)
            found = runs.answers(session, question, None, {"modules/x.ko": module}, [RXE], "base")
        finally:
            store.close()
        return [one.verdict for one in found], len(ran)

    return ask


def test_what_ran_whole_is_not_run_again(asked):
    """Mutation: forget the answers."""
    assert asked() == (["pass"], 1)
    assert asked() == (["pass"], 1)


def test_what_could_not_run_is_no_answer_for_ever(asked):
    """A full disk. Mutation: keep it."""
    assert asked("error") == (["error"], 1)
    assert asked() == (["pass"], 2)


def test_an_answer_is_of_the_harness_that_gave_it(asked, monkeypatch):
    """Mutations: leave the card and the laws out of its key; and how long the plans run."""
    asked()
    monkeypatch.setattr(runs, "judging", lambda: "another")
    assert asked()[1] == 2
    monkeypatch.setenv("ODP_FULL", "1")
    assert asked()[1] == 3


def test_real_time_of_another_day_is_no_answer(asked):
    """Mutation: take the other side's runs from the cache."""
    assert asked(detect=0.05)[1] == 1
    assert asked(detect=0.05)[1] == 2
