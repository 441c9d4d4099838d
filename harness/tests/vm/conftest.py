"""Real machines for the vm tests: one session for all of them, on the user's own cache."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from harness.plan.options import Options
from harness.plan.session import Session

CHECKOUT = Path(__file__).parents[3]
FULL = bool(os.environ.get("ODP_FULL"))


@pytest.fixture(scope="session")
def session():
    cache = os.environ.get("ODP_HARNESS_CACHE")
    with Session(Options(cache=Path(cache) if cache else None), print) as opened:
        yield opened


@pytest.fixture(scope="session")
def booted(session):
    kernel = session.kernel("newest")
    return session.machines.booted(kernel, session.machines.shape("exact"))


@pytest.fixture(scope="session")
def prepared(session):
    return session.prepared("newest", "soft-roce", "exact")[1]


def environment(**more):
    return {**os.environ, "PYTHONPATH": str(CHECKOUT), **more}


def harness(*argv, cwd=CHECKOUT, timeout=600, **env):
    """Run odp-harness to its end."""
    return subprocess.run(
        [sys.executable, "-m", "harness", *map(str, argv)],
        capture_output=True,
        text=True,
        cwd=cwd,
        timeout=timeout,
        env=environment(**env),
    )


def start_harness(log, *argv):
    """Start odp-harness; both its streams go to the file `log`."""
    argv = [sys.executable, "-m", "harness", *map(str, argv)]
    with log.open("wb") as file:
        return subprocess.Popen(
            argv, stdout=file, stderr=file, start_new_session=True, cwd=CHECKOUT, env=environment()
        )


def interrupted(results, side, number, log, *argv):
    """Interrupt a run with Ctrl-C once it has `number` records; return the records by path."""
    records = results / side / "records"
    run = start_harness(log, *argv, "--results", results)
    deadline = time.monotonic() + 900
    while len(list(records.glob("*.json"))) < number:
        assert run.poll() is None and time.monotonic() < deadline, log.read_text()
        time.sleep(0.02)
    os.kill(run.pid, signal.SIGINT)
    assert run.wait(30) == 130, log.read_text()
    assert f"--resume {results}" in log.read_text()
    return {path: path.read_bytes() for path in records.glob("*.json")}


@pytest.fixture
def borrowed_cache(session, tmp_path_factory):
    """Return a function that makes a cache with the session's entries of some kinds only, below a short path."""

    def make(*kinds):
        session.machines.disks(session.kernel("newest"))
        root = tmp_path_factory.mktemp("cache")
        for kind in kinds:
            (root / kind).mkdir(parents=True)
            for entry in (session.store.root / kind).iterdir():
                if not entry.name.startswith("."):
                    (root / kind / entry.name).symlink_to(entry)
        return root

    return make


def processes(marker):
    """List processes whose command line has `marker` in it, or whose root folder is below it."""
    leftovers = []
    for process in Path("/proc").iterdir():
        if process.name.isdigit():
            try:
                line = (process / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
                if marker in line or str((process / "root").readlink()).startswith(marker):
                    leftovers.append(f"{process.name}: {line}")
            except OSError:
                continue
    return leftovers
