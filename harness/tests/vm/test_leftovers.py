"""However the harness ends, it leaves no process and no file behind."""

import os
import random
import signal
import time

import pytest

from harness.ledger import reap
from harness.results.record import read_run
from harness.tests.vm.conftest import CHECKOUT, FULL, harness, processes, start_harness

PLANS = CHECKOUT / "testplans"


@pytest.fixture
def root(session, prepared, borrowed_cache):
    """Make a cache that no other test uses: everything left there is ours."""
    made = (folder.name for folder in session.store.root.iterdir() if folder.is_dir())
    return borrowed_cache(*(name for name in made if name not in ("runs", "venv")))


def _start(root, tmp_path, name, jobs):
    argv = ("run", "-j", jobs, "--cache", root, "--results", tmp_path / name, PLANS / "odp-write.toml")
    return start_harness(tmp_path / f"{name}.log", *argv)


def _left(root):
    """List folders of runs in this cache, and processes with such a folder in their command line."""
    return [*map(str, (root / "runs").glob("*")), *processes(str(root / "runs"))]


def _wait_until_clean(root, sweep=lambda runs: None):
    deadline = time.monotonic() + 10
    while True:
        sweep(root / "runs")
        left = _left(root)
        if not left:
            return
        assert time.monotonic() < deadline, left
        time.sleep(0.1)


def test_sigkill_at_random_instants(root, tmp_path):
    """Mutation: start QEMU without its parent-death signal and without a ledger entry."""
    chance = random.Random(20260101)
    for number in range(20 if FULL else 5):
        run = _start(root, tmp_path, f"kill{number}", jobs=1 + number % 2)
        time.sleep(chance.uniform(0.1, 8))
        os.kill(run.pid, signal.SIGKILL)
        run.wait()
        _wait_until_clean(root, reap)


@pytest.mark.parametrize(
    ("number", "jobs"), [(signal.SIGINT, 1), (signal.SIGTERM, 1), (signal.SIGINT, 2), (signal.SIGTERM, 2)]
)
def test_an_interrupt_cleans_up_and_the_run_is_resumed(root, tmp_path, number, jobs):
    """Resume with the cases that are left. Mutations: keep the default handler; run cases with a record again."""
    run = _start(root, tmp_path, "interrupted", jobs)
    log = tmp_path / "interrupted.log"
    records = tmp_path / "interrupted" / "records"
    deadline = time.monotonic() + 200
    while not list(records.glob("*.json") if records.is_dir() else []) and time.monotonic() < deadline:
        assert run.poll() is None, log.read_text()
        time.sleep(0.02)
    os.kill(run.pid, number)
    assert run.wait(30) == 130, log.read_text()
    assert "Traceback" not in log.read_text()
    assert list(records.glob("*.json"))
    if jobs == 1:
        assert _left(root) == []
    else:
        _wait_until_clean(root)  # without reaping: the workers do it themselves
    before = {path: path.read_text() for path in records.glob("*.json")}
    assert f"--resume {tmp_path / 'interrupted'}" in log.read_text()
    argv = (
        "run",
        "-j",
        jobs,
        "--cache",
        root,
        "--resume",
        tmp_path / "interrupted",
        PLANS / "odp-write.toml",
    )
    done = harness(*argv)
    assert done.returncode == 0, done.stdout + done.stderr
    assert {path: path.read_text() for path in before} == before
    stored = read_run(tmp_path / "interrupted")
    assert stored.complete and not stored.damaged
    names = [record.case.id for record in stored.records]
    assert len(names) == len(set(names)) == stored.index.expected > len(before)
