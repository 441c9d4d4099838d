"""An ordinary user builds the image with subordinate ids; a killed build is cleaned up as well."""

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
    """Create a user with the subordinate ids that useradd assigns: (name, uid, home)."""
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


def test_a_killed_build_is_cleaned_up_by_the_next_run(session, user):
    """Mutations: leave the unpacked system below /tmp, owned by others; build as root does."""
    session.kernel("newest")
    _, uid, home = user
    if _as_user(user, PYTHON, "-c", "import harness.cli, tomllib").wait(60):
        pytest.skip(f"an ordinary user cannot use this checkout: {(home / 'log').read_text()[-300:]}")
    cache = home / ".cache/odp-harness"
    cache.mkdir(parents=True)
    for kind in ("kernel", "qemu"):
        shutil.copytree(session.store.root / kind, cache / kind, symlinks=True)
    subprocess.run(["chown", "-R", f"{uid}:{uid}", str(home / ".cache")], check=True)
    work_folder = Path(tempfile.gettempdir()) / f"odp-harness-image-{uid}"
    plan = str(CHECKOUT / "testplans/odp-mixed.toml")
    run = (PYTHON, "-m", "harness", "run", "--device", "soft-roce", plan)

    killed = _as_user(user, *run)
    deadline = time.monotonic() + 300
    while not list(work_folder.glob("mmdebstrap.*/usr/bin/dpkg")):
        assert killed.poll() is None, (home / "log").read_text()
        assert time.monotonic() < deadline, (home / "log").read_text()
        time.sleep(0.1)
    time.sleep(5)
    os.kill(killed.pid, signal.SIGKILL)
    killed.wait()

    assert _as_user(user, *run).wait(900) == 0, (home / "log").read_text()
    assert "PASSED: 2 passed" in (home / "log").read_text()
    assert not work_folder.exists()
    assert processes(str(work_folder)) == []
    assert list((cache / "image").glob(".*")) == []
