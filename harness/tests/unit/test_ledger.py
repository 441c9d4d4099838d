import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from harness.cli import main
from harness.host import CommandError, LocalHost
from harness.ledger import Ledger, boot_id, reap, start_time

OWNER = """
import sys, time
from pathlib import Path
from harness.ledger import Ledger
from harness.cli import main
from harness.host import LocalHost
ledger = Ledger(Path(sys.argv[1]))
# Without its parent-death signal, as a child that lost it would be; with a child of its own.
import subprocess
child = subprocess.Popen(["sh", "-c", "sleep 300 & wait"], start_new_session=True)
ledger.add_process(child.pid)
(ledger.folder / "socket").touch()
ram = ledger.memory_file("ram", 1 << 20)
path = ram.__enter__()
path.touch()
print(path, flush=True)
print(child.pid, flush=True)
time.sleep(300)
"""


def _alive(pid):
    try:
        return start_time(pid) != 0 and " Z " not in Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False


def _session_members(leader):
    listed = subprocess.run(["ps", "-o", "pid=", "-s", str(leader)], capture_output=True, text=True)
    return [int(pid) for pid in listed.stdout.split() if _alive(int(pid))]


def test_killed_owner_is_reaped(tmp_path):
    """Mutation: kill the leader only: `sleep` stays. Or never take the lock: nothing is reaped.

    Or leave RAM files outside the folder alone.
    """
    owner = subprocess.Popen([sys.executable, "-c", OWNER, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    ram = Path(owner.stdout.readline().strip())
    leader = int(owner.stdout.readline())
    assert ram.exists()
    assert reap(tmp_path) == []  # while the owner lives, it is left alone
    born = time.monotonic() + 5
    while len(_session_members(leader)) < 2 and time.monotonic() < born:
        time.sleep(0.02)
    assert len(_session_members(leader)) == 2
    os.kill(owner.pid, signal.SIGKILL)
    owner.wait()
    steps = reap(tmp_path)
    assert any(str(leader) in line for line in steps)
    assert list(tmp_path.iterdir()) == []
    assert not ram.exists()
    deadline = time.monotonic() + 5
    while _session_members(leader) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert _session_members(leader) == []


def test_a_command_reaps_the_runs_of_its_killed_children(tmp_path):
    """Mutation: leave it to the next command that opens a session, as after an interrupted `regress`."""
    folder = tmp_path / "runs/1-x"
    folder.mkdir(parents=True)
    (folder / "lock").touch()
    assert main(["cache", "--cache", str(tmp_path)]) == 0
    assert not folder.exists()


def test_reused_pid_is_left_alone(tmp_path):
    """Mutation: do not compare start times: this test's own child is killed."""
    bystander = subprocess.Popen(["sleep", "300"], start_new_session=True)
    try:
        folder = tmp_path / "1-x"
        folder.mkdir()
        (folder / "lock").touch()
        (folder / "ledger.jsonl").write_text(
            json.dumps({"pid": bystander.pid, "started": 1, "boot": boot_id()}) + '\n{"pid": 1'
        )
        reap(tmp_path)
        assert bystander.poll() is None
        assert not folder.exists()
    finally:
        bystander.kill()
        bystander.wait()


def test_run_ends_its_children_at_the_deadline(tmp_path):
    """Mutation: kill only the shell: its `sleep` outlives it."""
    with Ledger(tmp_path) as ledger:
        host = LocalHost(ledger)
        try:
            host.run(["sh", "-c", "echo $$; sleep 300 & wait"], timeout_s=0.5)
        except CommandError as error:
            leader = int(error.finished.output)
        assert _session_members(leader) == []
    assert list(tmp_path.iterdir()) == []


def test_command_error_carries_evidence(tmp_path):
    """Mutation: drop the output's tail."""
    with Ledger(tmp_path) as ledger:
        try:
            LocalHost(ledger).run(["sh", "-c", "echo why it failed; exit 7"])
        except CommandError as error:
            assert error.finished.status == 7
            assert "why it failed" in error.evidence
        else:
            raise AssertionError("no error")
