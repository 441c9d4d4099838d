"""Whatever ends the harness, nothing of it stays."""

import os
import random
import signal
import time

import pytest

from harness.ledger import reap
from harness.tests.vm.conftest import CHECKOUT, FULL, processes, start_harness

PLANS = CHECKOUT / "testplans"


def _start(session, tmp_path, name):
    argv = ("run", "--cache", session.store.root, "--results", tmp_path / name, PLANS / "odp-write.toml")
    return start_harness(tmp_path / f"{name}.log", *argv)


def _ours(session):
    """Processes of other runs on this cache: their command lines name a folder below runs/."""
    own = str(session.ledger.folder)
    return [line for line in processes(str(session.store.root / "runs")) if own not in line]


def _wait_until_clean(session):
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        reap(session.store.root / "runs")
        folders = [f for f in (session.store.root / "runs").iterdir() if f != session.ledger.folder]
        if not _ours(session) and not folders:
            return
        time.sleep(0.1)
    raise AssertionError(f"left: {folders} {_ours(session)}")


def test_sigkill_at_random_instants(session, booted, tmp_path):
    """Mutation: start QEMU without its parent-death signal and without a ledger entry."""
    chance = random.Random(20260101)
    for number in range(20 if FULL else 5):
        run = _start(session, tmp_path, f"kill{number}")
        time.sleep(chance.uniform(0.1, 6))
        os.kill(run.pid, signal.SIGKILL)
        run.wait()
        _wait_until_clean(session)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interrupt_cleans_up_keeps_records_and_says_so(session, booted, tmp_path, number):
    """Mutation: let the default handler end the process."""
    run = _start(session, tmp_path, "interrupted")
    records = tmp_path / "interrupted" / "records"
    deadline = time.monotonic() + 200
    while not list(records.glob("*.json") if records.is_dir() else []) and time.monotonic() < deadline:
        assert run.poll() is None, (tmp_path / "interrupted.log").read_text()
        time.sleep(0.02)
    os.kill(run.pid, number)
    assert run.wait(20) == 130
    assert "Traceback" not in (tmp_path / "interrupted.log").read_text()
    assert list(records.glob("*.json"))
    folders = [f for f in (session.store.root / "runs").iterdir() if f != session.ledger.folder]
    assert folders == []
    assert _ours(session) == []
