"""`lab check` of this machine, through an sshd of ours."""

import json
import platform
import subprocess
import sys

import pytest

from harness.lab.finding import MISSING, NOTE, OK, UNKNOWN
from harness.lab.rows import ROWS
from harness.tests.lab.server import below, ended


def lab_check(server, *options):
    argv = [sys.executable, "-m", "harness", "lab", "check", server.name, "--ssh-config", str(server.config)]
    return subprocess.run([*argv, *options], capture_output=True, text=True, timeout=100)


def test_the_table_and_the_exit_status(server):
    """Mutation: exit with 0 whatever is missing; drop a row, or the list of packages."""
    result = lab_check(server)
    assert result.stderr == ""
    lines = result.stdout.splitlines()
    for row in ROWS:
        assert any(row.name in line for line in lines), row.name
    assert any(platform.release() in line for line in lines)
    verdicts = [line for line in lines if line.startswith(("soft-roce: ", "card: "))]
    assert len(verdicts) == 2
    assert result.returncode == (0 if any(line.endswith("could run here") for line in verdicts) else 3)


def test_json_says_the_same_as_the_rows(server):
    """Mutation: print progress on stdout; count a missing row that no device needs; leave a command running."""
    result = lab_check(server, "--json")
    assert all(ended(pid) for pid in below(server.process.pid))
    report = json.loads(result.stdout)
    assert {row["state"] for row in report["rows"]} <= {OK, NOTE, MISSING, UNKNOWN}
    for device, verdict in report["devices"].items():
        bad = [
            row["name"]
            for row in report["rows"]
            if device in row["needed"] and row["state"] in (MISSING, UNKNOWN)
        ]
        assert verdict == {"could_run": not bad, "missing": bad}
    assert result.returncode == (0 if any(each["could_run"] for each in report["devices"].values()) else 3)
    by_name = {row["name"]: row for row in report["rows"]}
    assert by_name["release"]["text"] == platform.release()
    assert by_name["host key"]["text"].startswith("ssh-ed25519 SHA256:")
    assert by_name["clock"]["state"] == OK
    assert "skip: injection rules need the emulated card" in report["plans"].values()


def test_a_host_that_does_not_answer_exits_with_3(server):
    """Mutation: let the error through as a traceback."""
    server.known.unlink()
    result = lab_check(server)
    assert (result.returncode, result.stdout) == (3, "")
    assert "host key is unknown" in result.stderr and "echo '[127.0.0.1]" in result.stderr
    assert lab_check(server, "--ssh-config", "/none").returncode == 2


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_every_command_is_valid_for_sh(row):
    """Mutation: leave a quote open in a row."""
    result = subprocess.run(["sh", "-n", "-c", row.command], capture_output=True, text=True)
    assert (result.returncode, result.stderr) == (0, "")
