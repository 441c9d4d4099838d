"""Plans as pytest items, run as pytest users run them."""

import subprocess
import sys
import xml.etree.ElementTree as xml

import pytest

from harness.results.record import read_run
from harness.tests.vm.conftest import CHECKOUT, environment, harness

MIXED = CHECKOUT / "testplans" / "odp-mixed.toml"


def _pytest(session, tmp_path, *argv):
    argv = [sys.executable, "-m", "pytest", "-p", "harness.plan.plugin", "-p", "no:cacheprovider", *argv]
    argv += [f"--cache={session.store.root}", f"--results={tmp_path / 'r'}", "--device=soft-roce"]
    return subprocess.run(
        list(map(str, argv)),
        capture_output=True,
        text=True,
        cwd=tmp_path,
        timeout=600,
        env=environment(PYTEST_ADDOPTS=""),
    )


def test_workers_selection_and_junit(session, tmp_path):
    """Mutation: let a worker make its own results folder; or lose -k in them."""
    done = _pytest(session, tmp_path, MIXED, "-n", "2", "--junitxml=x.xml", "-k", "write")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "1 passed" in done.stdout
    cases = list(xml.parse(tmp_path / "x.xml").getroot().iter("testcase"))
    assert [case.get("name") for case in cases] == ["newest/soft-roce/write"]
    assert [child.tag for child in cases[0] if child.tag != "properties"] == []
    run = read_run(tmp_path / "r")
    assert [record.case.id for record in run.records] == ["odp-mixed/newest/soft-roce/write"]
    assert run.complete


def test_a_failure_stops_with_x_and_has_its_reason(session, tmp_path):
    """Expect a wrong count. Mutation: make a failed case an error of the harness, with a traceback."""
    plan = tmp_path / "wrong.toml"
    plan.write_text(MIXED.read_text() + "\n[expect]\nfaults = 1\n")
    done = _pytest(session, tmp_path, plan, "-x")
    assert done.returncode == 1, done.stdout + done.stderr
    assert "count: expected 1 faults, traced " in done.stdout
    assert "1 failed" in done.stdout
    assert "stopping after 1 failures" in done.stdout
    assert "Traceback" not in done.stdout + done.stderr
    assert len(read_run(tmp_path / "r").records) == 1


def test_broken_plan_is_one_error_without_traceback(session, tmp_path):
    """Mutation: leave the exception to pytest."""
    plan = tmp_path / "broken.toml"
    plan.write_text('title = "x"\n[workload]\noperation = "wirte"\n')
    done = _pytest(session, tmp_path, plan)
    assert done.returncode == pytest.ExitCode.INTERRUPTED, done.stdout
    assert "broken.toml:3: workload.operation: 'wirte' is none of" in done.stdout
    assert "Traceback" not in done.stdout + done.stderr
    assert "schema.py" not in done.stdout
    assert not (tmp_path / "r").exists()


def test_nothing_selected_is_pytests_own_status(session, tmp_path):
    """Mutation: open the session before -k has selected: results of no case."""
    done = _pytest(session, tmp_path, MIXED, "-k", "nothing_has_this_name")
    assert done.returncode == pytest.ExitCode.NO_TESTS_COLLECTED, done.stdout
    assert not (tmp_path / "r").exists()


def test_run_on_two_workers_twice_each(session, tmp_path):
    """Run two machines at a time, each case twice with equal results. Mutation: restore with a real clock."""
    where = ("--cache", session.store.root, "--results", tmp_path / "r")
    result = harness("run", "-j", "2", "--twice", "--device", "soft-roce", MIXED, *where)
    assert result.returncode == 0, result.stdout + result.stderr
    run = read_run(tmp_path / "r")
    assert sorted(record.verdict for record in run.records) == ["pass", "pass"]
    assert run.complete
    assert "PASSED: 2 passed" in result.stdout


def test_a_failure_on_two_workers_is_no_interrupt_and_another_plan_is_not_resumed(session, tmp_path):
    """Mutations: take what pytest-xdist does after -x for Ctrl-C; resume with the records of another plan."""
    plan = tmp_path / "wrong.toml"
    plan.write_text(MIXED.read_text() + "\n[expect]\nfaults = 1\n")
    argv = ("run", "-j", "2", "--device", "soft-roce", "--cache", session.store.root)
    failed = harness(*argv, "-x", plan, "--results", tmp_path / "r")
    assert failed.returncode == 1, failed.stdout + failed.stderr
    assert "FAILED: " in failed.stdout and "--resume" not in failed.stderr
    plan.write_text(MIXED.read_text())
    other = harness(*argv, plan, "--resume", tmp_path / "r")
    assert other.returncode == 2, other.stdout + other.stderr
    assert "is of other plans: " in other.stderr and "Traceback" not in other.stderr
