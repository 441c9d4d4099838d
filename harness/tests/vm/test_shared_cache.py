"""Several runs on one cache: they share it, wait for each other, and repair incomplete entries of killed runs."""

import os
import signal
import time
from pathlib import Path

import pytest

from harness.ledger import reap
from harness.plan.options import Options
from harness.plan.session import Session
from harness.results.record import read_run
from harness.tests.vm.conftest import CHECKOUT, FULL, processes, start_harness

PLAN = CHECKOUT / "testplans" / "odp-mixed.toml"
ALL_BUT_SNAPSHOTS = ("apt", "kernel", "kernel-disk", "image", "initrd", "qemu")


def _start(cache, tmp_path, name):
    # One process, which reports what it builds.
    argv = ("run", "-j", 1, "--device", "soft-roce", "--cache", cache, "--results", tmp_path / name, PLAN)
    return start_harness(tmp_path / f"{name}.log", *argv)


def _kill_when(there, run, log, delay_s=0.0):
    deadline = time.monotonic() + 300
    while not there():
        assert run.poll() is None, log.read_text()
        assert time.monotonic() < deadline, log.read_text()
        time.sleep(0.02)
    time.sleep(delay_s)
    os.kill(run.pid, signal.SIGKILL)
    run.wait()


def _gone(what, within_s=10):
    deadline = time.monotonic() + within_s
    while what() and time.monotonic() < deadline:
        time.sleep(0.1)
    return not what()


def test_killed_snapshot_builds_are_repaired_and_two_runs_share_them(borrowed_cache, tmp_path):
    """Kill a run while it boots and one while it prepares; then of two at once one builds, the other waits, both pass.

    Mutations: build without the lock (both report that they prepare); leave stale folders alone.
    """
    cache = borrowed_cache(*ALL_BUT_SNAPSHOTS)
    for kind in ("booted", "prepared"):
        run = _start(cache, tmp_path, kind)
        _kill_when(lambda kind=kind: list(cache.glob(f"{kind}/.*/ram")), run, tmp_path / f"{kind}.log", 1)
        assert _gone(lambda: processes(str(cache)))
        assert list(cache.glob(f"{kind}/.*")), "no incomplete entry: the test killed too late"
    runs = [_start(cache, tmp_path, name) for name in ("one", "two")]
    assert [run.wait(500) for run in runs] == [0, 0], _logs(tmp_path, "one", "two")
    log = _logs(tmp_path, "one", "two")
    assert log.count("preparing ") == 1, log
    assert "booting " not in log
    for name in ("one", "two"):
        assert [record.verdict for record in read_run(tmp_path / name).records] == ["pass", "pass"]
    for kind in ("booted", "prepared"):
        assert [entry.name[0] != "." for entry in (cache / kind).iterdir()] == [True]
    assert list((cache / "runs").iterdir()) == []


@pytest.mark.skipif(not FULL, reason="builds an image, minutes: ODP_FULL=1")
def test_killed_image_build_is_repaired(borrowed_cache, tmp_path):
    """Kill mmdebstrap with a chroot mounted. Mutation: start it outside namespaces of its own."""
    cache = borrowed_cache("apt", "kernel", "kernel-disk", "initrd", "qemu")
    run = _start(cache, tmp_path, "killed")
    incomplete = "image/.*/mmdebstrap.*/usr/bin/dpkg" if os.geteuid() == 0 else "image/.*/root.tar"
    _kill_when(lambda: list(cache.glob(incomplete)), run, tmp_path / "killed.log", 8)
    reap(cache / "runs")
    assert _gone(lambda: processes(str(cache)))
    assert str(cache) not in Path("/proc/self/mounts").read_text()
    with Session(Options(cache=cache), print) as session:
        assert list(cache.glob("image/.*")) == []
        assert session.machines.image.disk.stat().st_size > 50 << 20
    assert list(cache.glob("image/.*")) == []


def _logs(tmp_path, *names):
    return "\n".join((tmp_path / f"{name}.log").read_text() for name in names)
