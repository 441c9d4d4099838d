"""Without root: the image is built with subordinate ids, and a killed build of it is cleaned up as well."""

import os
import shutil
import signal
import subprocess
import tempfile
import time
from pathlib import Path

import pytest

from harness.tests.vm.conftest import CHECKOUT, FULL, processes

pytestmark = [
    pytest.mark.skipif(not FULL, reason="builds an image, minutes: ODP_FULL=1"),
    pytest.mark.skipif(os.geteuid() != 0 or not shutil.which("useradd"), reason="makes a user: needs root"),
]
PYTHON = "/usr/bin/python3"
LIBRARIES = Path(pytest.__file__).parents[1]


@pytest.fixture
def user():
    """A user of its own, with subordinate ids as useradd gives them: (name, uid, home)."""
    name = f"odp-test-{os.getpid()}"
    subprocess.run(["useradd", "--create-home", name], check=True)
    try:
        lines = (line.split(":") for line in Path("/etc/passwd").read_text().splitlines())
        yield next((name, int(fields[2]), Path(fields[5])) for fields in lines if fields[0] == name)
    finally:
        subprocess.run(["userdel", "--remove", name], check=True, capture_output=True)


def _as_user(user, *argv):
    name, uid, home = user
    environment = {"HOME": str(home), "USER": name, "PATH": os.environ["PATH"]}
    environment["PYTHONPATH"] = f"{CHECKOUT}:{LIBRARIES}"
    environment["PYTEST_DEBUG_TEMPROOT"] = str(home)  # goes with the user
    switch = ["setpriv", f"--reuid={uid}", f"--regid={uid}", "--clear-groups", "--"]
    with (home / "log").open("wb") as log:
        return subprocess.Popen(
            [*switch, *argv], cwd=home, env=environment, stdout=log, stderr=log, start_new_session=True
        )


def test_killed_build_and_run(session, user):
    """Mutations: leave the half-made system where mmdebstrap likes it (below /tmp, owned by others); build
    the image as if root had."""
    session.kernel("newest")
    _, uid, home = user
    if _as_user(user, PYTHON, "-c", "import harness.cli, tomllib").wait(60):
        pytest.skip(f"an ordinary user cannot use this checkout: {(home / 'log').read_text()[-300:]}")
    cache = home / ".cache/odp-harness"
    cache.mkdir(parents=True)
    for kind in ("kernel", "qemu"):
        shutil.copytree(session.store.root / kind, cache / kind, symlinks=True)
    subprocess.run(["chown", "-R", f"{uid}:{uid}", str(home / ".cache")], check=True)
    workshop = Path(tempfile.gettempdir()) / f"odp-harness-image-{uid}"
    plan = str(CHECKOUT / "testplans/odp-mixed.toml")
    run = (PYTHON, "-m", "harness", "run", "--device", "soft-roce", plan)

    killed = _as_user(user, *run)
    deadline = time.monotonic() + 300
    while not list(workshop.glob("mmdebstrap.*/usr/bin/dpkg")):
        assert killed.poll() is None, (home / "log").read_text()
        assert time.monotonic() < deadline, (home / "log").read_text()
        time.sleep(0.1)
    time.sleep(5)
    os.kill(killed.pid, signal.SIGKILL)
    killed.wait()

    assert _as_user(user, *run).wait(900) == 0, (home / "log").read_text()
    assert "PASSED: 2 passed" in (home / "log").read_text()
    assert not workshop.exists()
    assert processes(str(workshop)) == []
    assert list((cache / "image").glob(".*")) == []
