"""Scripts on the standard input of `odp-harness shell`."""

import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from harness.tests.vm.conftest import CHECKOUT, environment

WINDOW = Path(__file__).with_name("window_guest.py").read_text()
LINE = "# a b c d e f g h i j k l m n o p q r s t u v w x y z\n"


@pytest.fixture
def shell(session):
    def run(device, script):
        return subprocess.run(
            [sys.executable, "-m", "harness", "shell", "--device", device, "--cache", session.store.root],
            input=script,
            capture_output=True,
            text=True,
            cwd=CHECKOUT,
            timeout=900,
            env=environment(),
            check=False,
        )

    return run


def test_a_long_script_runs_and_ends_as_it_ends(shell):
    """Mutations: take a space where a piece of the request ends for its padding; exit 0."""
    done = shell("soft-roce", LINE * 700 + "echo one\nrdma link show >&2\nexit 7\n")
    assert done.returncode == 7, done.stderr
    assert done.stdout.startswith("one\nlink soft-roce/1 state ACTIVE"), done.stdout


def test_output_of_a_script_before_a_crash_is_printed(shell):
    """The console's evidence comes after it. Mutations: print at the end; tell a line some time later."""
    done = shell("soft-roce", "echo one; echo two >&2; echo c > /proc/sysrq-trigger; echo three\n")
    assert done.returncode == 1 and done.stdout == "one\ntwo\n", done.stdout
    assert "sysrq triggered crash" in done.stderr and "sysrq_handle_crash" in done.stderr


def test_a_memory_window_over_discarded_pages_on_a_card(shell):
    """Start a script when the driver has the card.

    Mutations: do not wait for it; give an indirect key's list with `pg_access` only (QUERY_MKEY): the first write
    ends in IBV_WC_REM_OP_ERR.
    """
    done = shell("connectx-5", f"{LINE * 100}python3 -c {shlex.quote(WINDOW)} mlx5_0\n")
    assert done.returncode == 0, done.stderr + done.stdout
    writes = [f"write {turn}: '', 0 bytes wrong" for turn in (1, 2, 3)]
    assert done.stdout.splitlines() == ["bind: ''", *writes]
