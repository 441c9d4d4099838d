"""Answers that are kept by content, and those that are not."""

from dataclasses import replace
from types import SimpleNamespace

import pytest

from harness.campaign import runs
from harness.campaign.runs import RegressRequest
from harness.errors import UsageError
from harness.kernel.subsystems import RXE
from harness.results.record import RunStore as Results
from harness.store import Store
from harness.tests.unit.results.sample import record
from harness.values.record import Reason


@pytest.fixture
def asked(tmp_path, monkeypatch):
    """Ask a question of verdicts to come; what was run."""
    ran = []
    module = tmp_path / "x.ko"
    module.write_bytes(b"x")

    def ask(verdict="pass", **changes):
        def run(session, question, devices, name, blocks, place, begun):
            ran.append(blocks)
            results = Results.reopen(place, {}) if begun else Results.create(place, {}, 1)
            results.add(replace(record(1, "pass"), verdict=verdict))
            results.finish()

        monkeypatch.setattr(runs, "_run", run)
        store = Store(tmp_path / "cache")
        try:
            machines = SimpleNamespace(key=lambda *given: "k", shape=lambda clock: clock)
            session = SimpleNamespace(store=store, machines=machines, say=lambda line: None)
            question = replace(RegressRequest("q", "7.3", (), tmp_path / f"r{len(ran)}"), **changes)
            found = runs.answers(session, question, None, {"modules/x.ko": module}, [RXE], "base")
        finally:
            store.close()
        return [one.verdict for one in found], len(ran)

    ask.ran = ran
    return ask


def test_what_ran_of_the_part_is_noted_but_not_in_real_time(asked):
    """Mutations: note nothing; note it where it takes time."""
    asked()
    asked(detect=0.05)
    assert asked.ran == [("rdma_rxe",), ()]


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
    monkeypatch.delenv("ODP_FULL", raising=False)
    asked()
    monkeypatch.setattr(runs, "judging", lambda: "another")
    assert asked()[1] == 2
    monkeypatch.setenv("ODP_FULL", "1")
    assert asked()[1] == 3


def test_real_time_of_another_day_is_no_answer(asked):
    """Mutation: take the other side's runs from the cache."""
    assert asked(detect=0.05)[1] == 1
    assert asked(detect=0.05)[1] == 2


def test_a_run_ends_when_it_is_clear_that_machines_hang(tmp_path, monkeypatch):
    """Four deadlines are eight minutes. Mutations: count hangs that are known; wait for the end."""
    monkeypatch.setattr(runs, "POLL_S", 0.0)
    store = Results.create(tmp_path / "r", {}, expected=20)
    hung = (Reason("hang", "no reply to request 3 (case) within 120 s"),)
    polls = iter(range(100))

    def ended():
        poll = next(polls)
        store.add(replace(record(poll, "known" if poll < 3 else "fail"), reasons=hung))
        return poll == 9

    said = []
    assert runs._follow(SimpleNamespace(say=said.append), tmp_path / "r", "patched", ended)
    assert next(polls) == 5 and "2 cases hung" in said[-1]


def test_a_run_ends_after_so_many_failures(tmp_path, monkeypatch):
    """Mutations: count what does not fail as it is known to; leave it to pytest, which counts that, too."""
    monkeypatch.setattr(runs, "POLL_S", 0.0)
    store = Results.create(tmp_path / "r", {}, expected=20)
    mended, leak = (Reason("known", "did not fail: is it mended?"),), (Reason("leak", "MR"),)
    polls = iter(range(100))

    def ended():
        poll = next(polls)
        store.add(replace(record(poll, "fail"), reasons=mended if poll < 6 else leak))
        return poll == 12

    session = SimpleNamespace(say=lambda line: None)
    assert runs._follow(session, tmp_path / "r", "patched", ended, 4)
    assert next(polls) == 10


@pytest.mark.parametrize(
    ("reason", "clock", "ran"),
    [("leak", "exact", 1), ("leak", "paced", 2), ("leak", "real", 2), ("hang", "exact", 2)],
)
def test_a_failure_that_may_pass_is_no_answer(tmp_path, monkeypatch, asked, reason, clock, ran):
    """A deadline is the host's time. Mutation: judge every later patch against it."""
    failed = replace(
        record(1, "fail"),
        reasons=(Reason(reason, "x"),),
        environment={**record(1, "fail").environment, "clock": clock},
    )
    monkeypatch.setattr("harness.tests.unit.campaign.test_runs.record", lambda number, verdict: failed)
    asked("fail")
    assert asked("fail")[1] == ran


def test_plans_of_one_content_and_two_names_are_two(tmp_path, asked):
    """Cases are named after their plan. Mutation: leave the names out of the key."""
    for number, name in enumerate(("one", "two"), 1):
        (tmp_path / f"{name}.toml").write_text("title = 'x'\n")
        assert asked(plans=(tmp_path / f"{name}.toml",))[1] == number


def test_a_folder_of_somebody_elses_stays(tmp_path, asked):
    """Mutation: clear whatever is called base there."""
    asked()
    (tmp_path / "r1/base").mkdir(parents=True)
    (tmp_path / "r1/base/thesis").write_text("x")
    with pytest.raises(UsageError, match="no folder of results"):
        asked()
    assert (tmp_path / "r1/base/thesis").exists()
