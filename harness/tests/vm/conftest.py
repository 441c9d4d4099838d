"""Real machines for the vm tests: one session for all of them, on the user's own cache."""

import os
import subprocess
import sys
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
    return session.studio.booted(kernel, session.studio.shape("exact"))


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


@pytest.fixture
def borrowed_cache(session, tmp_path_factory):
    """Makes a cache that has what `session` has of some kinds, and nothing else. Sockets below it want a short path."""

    def make(*kinds):
        session.studio.disks(session.kernel("newest"))
        root = tmp_path_factory.mktemp("cache")
        for kind in kinds:
            (root / kind).mkdir(parents=True)
            for entry in (session.store.root / kind).iterdir():
                if not entry.name.startswith("."):
                    (root / kind / entry.name).symlink_to(entry)
        return root

    return make


def processes(marker):
    """Command lines of processes that name `marker`, or whose root folder is below it."""
    found = []
    for process in Path("/proc").iterdir():
        if process.name.isdigit():
            try:
                line = (process / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
                if marker in line or str((process / "root").readlink()).startswith(marker):
                    found.append(f"{process.name}: {line}")
            except OSError:
                continue
    return found
