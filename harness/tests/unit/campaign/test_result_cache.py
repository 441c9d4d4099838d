"""Records that are cached by content, and those that must not be."""

from dataclasses import replace
from types import SimpleNamespace

import pytest

from harness.campaign import result_cache
from harness.campaign.question import RegressRequest
from harness.campaign.result_cache import ModuleRun
from harness.errors import UsageError
from harness.kernel.subsystems import RXE
from harness.results.record import RunStore as Results
from harness.store import Store
from harness.tests.unit.results.sample import record
from harness.values.record import Reason


@pytest.fixture
def run_request(tmp_path, monkeypatch):
    """Run a request whose cases have these verdicts; return their verdicts and the number of runs so far."""
    ran = []
    module = tmp_path / "x.ko"
    module.write_bytes(b"x")

    def once(verdict="pass", **changes):
        def run_child(session, run):
            ran.append(run.blocks)
            results = Results.reopen(run.results, {}) if run.resumed else Results.create(run.results, {}, 1)
            results.add(replace(record(1, "pass"), verdict=verdict))
            results.finish()

        monkeypatch.setattr(result_cache, "run_child", run_child)
        store = Store(tmp_path / "cache")
        try:
            machines = SimpleNamespace(key=lambda *arguments: "k", shape=lambda clock: clock)
            session = SimpleNamespace(store=store, machines=machines, say=lambda line: None)
            request = replace(RegressRequest("q", "7.3", (), tmp_path / f"r{len(ran)}"), **changes)
            run = ModuleRun(request, None, {"modules/x.ko": module}, [RXE], "baseline")
            records = result_cache.run_cases(session, run)
        finally:
            store.close()
        return [one.verdict for one in records], len(ran)

    once.ran = ran
    return once


def test_executed_blocks_are_logged_but_not_in_real_time(run_request):
    """Mutations: log nothing; log where it costs time."""
    run_request()
    run_request(effect=0.05)
    assert run_request.ran == [("rdma_rxe",), ()]


def test_a_complete_run_is_not_run_again(run_request):
    """Mutation: forget the records."""
    assert run_request() == (["pass"], 1)
    assert run_request() == (["pass"], 1)


def test_transient_failures_are_not_cached(run_request):
    """A full disk. Mutation: cache it."""
    assert run_request("error") == (["error"], 1)
    assert run_request() == (["pass"], 2)


def test_records_depend_on_the_code_of_the_harness(run_request, monkeypatch):
    """Mutations: leave the card and the plans out of the key; and how long the plans run."""
    monkeypatch.delenv("ODP_FULL", raising=False)
    run_request()
    monkeypatch.setattr(result_cache, "harness_code", lambda: "another")
    assert run_request()[1] == 2
    monkeypatch.setenv("ODP_FULL", "1")
    assert run_request()[1] == 3


def test_runs_in_real_time_are_not_reused_by_another_run(run_request):
    """Mutation: take the runs of one side from the cache."""
    assert run_request(effect=0.05)[1] == 1
    assert run_request(effect=0.05)[1] == 2


@pytest.mark.parametrize(
    ("reason", "clock", "ran"),
    [("leak", "exact", 1), ("leak", "icount", 2), ("leak", "real", 2), ("hang", "exact", 2)],
)
def test_failures_that_may_be_transient_are_not_cached(
    tmp_path, monkeypatch, run_request, reason, clock, ran
):
    """A timeout is host time. Mutation: compare every later patch with it."""
    failed = replace(
        record(1, "fail"),
        reasons=(Reason(reason, "x"),),
        environment={**record(1, "fail").environment, "clock": clock},
    )
    monkeypatch.setattr(
        "harness.tests.unit.campaign.test_result_cache.record", lambda number, verdict: failed
    )
    run_request("fail")
    assert run_request("fail")[1] == ran


def test_the_name_of_a_plan_is_in_the_key(tmp_path, run_request):
    """Cases are named after their plan. Mutation: leave the names out of the key."""
    for number, name in enumerate(("one", "two"), 1):
        (tmp_path / f"{name}.toml").write_text("title = 'x'\n")
        assert run_request(plans=(tmp_path / f"{name}.toml",))[1] == number


def test_a_folder_with_other_files_is_not_removed(tmp_path, run_request):
    """Mutation: clear whatever is called baseline there."""
    run_request()
    (tmp_path / "r1/baseline").mkdir(parents=True)
    (tmp_path / "r1/baseline/thesis").write_text("x")
    with pytest.raises(UsageError, match="no folder of results"):
        run_request()
    assert (tmp_path / "r1/baseline/thesis").exists()
