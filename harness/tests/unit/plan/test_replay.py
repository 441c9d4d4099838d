"""Stored cases: what of a record is run again, and what counts as the same end."""

import re
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from harness.cli import main
from harness.cli import replay as cli
from harness.errors import SetupError, Unsupported, UsageError
from harness.plan import plugin, replay
from harness.plan.options import Logs
from harness.plan.plan import load
from harness.plan.results_dir import open_results
from harness.results.record import RunStore
from harness.tests.unit.results.sample import record
from harness.values import codec
from harness.values.record import Reason

PLANS = Path(__file__).parents[4] / "testplans"


def kept(verdict="fail", **changes):
    one = record(1, verdict)
    environment = {**one.environment, "series": "7.3", "clock": "exact"}
    return replace(one, plan="odp-write", environment=environment, **changes)


def test_a_record_finds_its_plan_and_its_modules(tmp_path):
    """Mutations: take the plan's first case for the record's; forget the modules."""
    one = kept()
    path = tmp_path / "records" / "001.json"
    path.parent.mkdir()
    path.write_text(codec.dumps(one))
    assert replay.stored(path) == replay.Stored(one, None)
    (tmp_path / "payload").mkdir()
    assert replay.stored(path).payload == tmp_path / "payload"
    planned = replay.planned(one, replay.todays(one, PLANS))
    assert (planned.case, planned.kernel, planned.clock) == (one.case, "7.3.4+deb13-amd64", "exact")
    assert planned.plan.name == "odp-write"
    with pytest.raises(UsageError, match="has no plan odp-gone"):
        replay.todays(replace(one, plan="odp-gone"), PLANS)
    path.write_text("{}")
    with pytest.raises(UsageError, match="is no record"):
        replay.stored(path)


def ran(plan, store, verdict="pass"):
    """As the plugin runs the plan's first case; the record's file."""
    case = next(plan.cases(("newest",)))
    made = replace(kept("pass"), plan=plan.name, case=case.case, verdict=verdict)
    options = SimpleNamespace(twice=False, no_skip=False)
    runner = SimpleNamespace(run=lambda *args: (made, Logs()))
    item = SimpleNamespace(planned=case, user_properties=[])
    item.config = SimpleNamespace(option=options, stash={plugin.RUNNER: runner, plugin.RESULTS: store})
    plugin.PlanItem.runtest(item)
    return Path(item.user_properties[0][1])


PLAN = """
title = "{title}"
[workload]
operation = "write"
"""


def test_a_record_is_run_again_by_its_plan_as_it_was(tmp_path, monkeypatch, capfd):
    """Mutations: look in the checkout first; copy the file as it is when the case has run; write it with each case."""
    mine = tmp_path / "elsewhere" / "odp-write.toml"
    mine.parent.mkdir()
    mine.write_text(PLAN.format(title="mine"))
    plan = load(mine)
    mine.write_text(PLAN.format(title="changed since"))
    store = RunStore.create(tmp_path / "run")
    path = ran(plan, store)
    mine.unlink()
    copy = tmp_path / "run" / "plans" / "odp-write.toml"
    assert copy.read_text() == PLAN.format(title="mine")
    written = copy.stat().st_ino
    ran(plan, store)
    assert copy.stat().st_ino == written
    titles = []

    def look(session, record, case):
        titles.append((case.plan.title, case.kernel))
        raise SetupError("seen")

    monkeypatch.setattr(cli, "fetch", look)
    argv = ["replay", str(path), "--cache", str(tmp_path / "cache")]
    assert main(argv) == 3 and "no copy of its plan" not in capfd.readouterr().err
    copy.unlink()
    assert main(argv) == 3 and f"using {PLANS}/odp-write.toml" in capfd.readouterr().err.replace("\n", "")
    checkouts = load(PLANS / "odp-write.toml").title
    assert titles == [("mine", "7.3.4+deb13-amd64"), (checkouts, "7.3.4+deb13-amd64")]


def test_a_disk_without_room_for_a_plan_costs_no_record(tmp_path):
    """Mutation: let the error end the case."""
    store = RunStore.create(tmp_path / "run")
    (tmp_path / "run" / "plans").write_text("in the way")
    assert replay.stored(ran(load(PLANS / "odp-write.toml"), store)).plan is None


def test_two_plans_of_one_name_are_refused(tmp_path):
    """Mutations: keep the first one's copy for both; refuse a plan that is named twice."""
    names = []
    for folder, title in (("a", "one"), ("b", "two")):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "x.toml").write_text(PLAN.format(title=title))
        names.append(str(tmp_path / folder / "x.toml"))
    settings = {"resume": None, "results": tmp_path / "r", "time": "", "image": "x", "payload": None}
    option = SimpleNamespace(**settings, icount=False, twice=False, no_skip=False)
    with pytest.raises(pytest.UsageError, match="two plans are called x"):
        open_results(SimpleNamespace(option=option, args=names))
    assert open_results(SimpleNamespace(option=option, args=names[:1] * 2)).directory == tmp_path / "r"


def test_the_kernel_of_a_tree_is_that_trees():
    """Mutation: ask the archive for a release that only the tree has."""
    one = record(1, "pass")
    environment = {**one.environment, "kernel": "7.3.4-own", "series": "/home/x/linux"}
    assert replay._kernel(replace(one, environment=environment)) == "/home/x/linux"
    assert replay._kernel(replace(one, environment={**environment, "series": "7.3"})) == "7.3.4-own"


def test_the_kernel_is_the_records_or_none():
    """Mutations: the series of today; a record of a machine that never came up on the newest; say no release."""
    release, package = "7.3.1+deb13-amd64", "7.3.1-1"
    one = kept()
    one = replace(one, environment={**one.environment, "kernel": release, "kernel_package": package})
    case = replay.planned(one, PLANS / "odp-write.toml")
    bare = replace(one, environment={}, case=replace(one.case, id="odp-write/7.2/soft-roce/remote"))
    assert replay.planned(bare, PLANS / "odp-write.toml").kernel == "7.2"
    queries, messages = [], []

    def kernel(name, version):
        queries.append((name, version))
        return SimpleNamespace(release=name, version="7.3.1-2")

    replay.fetch(SimpleNamespace(kernel=kernel, say=messages.append), one, case)
    assert queries == [(release, package)]
    assert messages == [f"{release} is from package 7.3.1-2 now, the record's from {package}"]
    for error in (UsageError(f"unknown kernel '{release}'"), Unsupported("gone")):

        def gone(*settings, error=error):
            raise error

        with pytest.raises(SetupError, match=re.escape(f"is not available any more: {release}")) as raised:
            replay.fetch(SimpleNamespace(kernel=gone), one, case)
        assert raised.value.exit_status == 3


@pytest.mark.parametrize(
    ("again", "pattern"),
    [
        ({}, ""),
        ({"verdict": "pass", "reasons": ()}, "verdict: fail, now pass"),
        ({"reasons": (Reason("leak", "QP"),)}, "reasons: .*, now leak"),
    ],
)
def test_a_replay_is_the_same_or_differs(again, pattern):
    """Mutations: compare verdicts alone; compare the words of reasons."""
    one = kept(reasons=(Reason("data", "7 bytes"),))
    runner = SimpleNamespace(run=lambda case: (replace(one, **again), None))
    assert re.fullmatch(
        pattern, replay.difference(runner, one, replay.planned(one, PLANS / "odp-write.toml"))
    )


def test_exact_answers_must_be_equal():
    """Mutation: leave answers out."""
    one = kept()
    other = replace(one, answer=replace(one.answer, elapsed_ns=one.answer.elapsed_ns + 1))
    runner = SimpleNamespace(run=lambda case: (other, None))
    assert "elapsed_ns" in replay.difference(runner, one, replay.planned(one, PLANS / "odp-write.toml"))
    real = replace(one, environment={**one.environment, "clock": "real"})
    assert not replay.difference(runner, real, replay.planned(real, PLANS / "odp-write.toml"))
