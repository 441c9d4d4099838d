"""Commands on a host: output, deadlines, lost hosts, and what is left there."""

import hashlib
import os
import shlex
import signal
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path

import pytest

from harness.errors import SetupError
from harness.host import CommandError
from harness.host.ssh_connect import Limits
from harness.tests.lab.server import alive, below, ended

LATE_S = 3
"""How late a deadline may be noticed on a busy machine."""


def test_megabytes_on_both_streams_and_the_status(host):
    """Mutation: wait for the status before reading, or read one stream only: both hang for ever."""
    script = "head -c 6000000 /dev/zero; head -c 6000000 /dev/zero >&2; exit 7"
    finished = host.run(["sh", "-c", script], timeout_s=30, check=False)
    assert (len(finished.output), finished.status) == (12_000_000, 7)


def test_output_is_what_the_command_wrote(host):
    """Mutation: add or drop a line break at the end, or cut what looks like our mark."""
    for text in ("", "x", "x\n", "\n\n", "0123456789abcdef" * 3, "begin 1\nend 2"):
        assert host.run(["printf", "%s", text]).output == text


def test_a_failure_has_its_output_as_evidence(host):
    """Mutation: drop the output."""
    with pytest.raises(CommandError, match="sh: exit status 4") as caught:
        host.run(["sh", "-c", "echo before; exit 4"])
    assert "before" in caught.value.evidence and caught.value.finished.status == 4


def test_a_death_by_signal_is_no_lost_connection(host):
    """Mutation: take the channel's exit status, which is -1 for both."""
    assert host.run(["sh", "-c", "kill -9 $$"], check=False).status == 128 + signal.SIGKILL


def test_environment_folder_and_programs_of_root(host, tmp_path):
    """Mutation: set the environment by ssh, which sshd drops in silence."""
    script = 'echo "$A"; pwd; case $PATH in */usr/sbin*) echo sbin; esac'
    finished = host.run(["sh", "-c", script], env={"A": "b 'c"}, cwd=str(tmp_path))
    assert finished.output.splitlines() == ["b 'c", str(tmp_path), "sbin"]
    with pytest.raises(SetupError, match="runs no command"):
        host.run(["true"], cwd=str(tmp_path / "none"))


@pytest.mark.parametrize("script", ["sleep 60", "exec yes"], ids=["silent", "chatty"])
def test_a_deadline_ends_the_command(host, script):
    """Mutation: limit each read only; or close the channel and leave the command there."""
    began = time.monotonic()
    with pytest.raises(CommandError, match="timed out after 1 s") as caught:
        host.run(["sh", "-c", f"echo $$; {script}"], timeout_s=1)
    assert time.monotonic() - began < 1 + LATE_S
    assert ended(int(caught.value.finished.output.split()[0]))


def test_what_a_command_leaves_in_its_session_ends_with_it(host):
    """Mutation: kill the process group only: timeout(1) makes one of its own."""
    script = "timeout 60 sleep 60 & sleep 0.3; timeout 50 sleep 50 & echo $!"
    assert ended(int(host.run(["sh", "-c", script], timeout_s=10).output))


def test_what_the_login_shell_prints_is_no_output(server, host):
    """Mutation: take all that comes before the end mark for output."""
    (server.folder / ".bashrc").write_text("echo welcome; printf bye; exec 2>&1\n")
    (server.folder / ".zshenv").write_text("printf welcome\n")
    assert host.run(["echo", "x"]).output == "x\n"


def test_lines_are_followed_as_they_come(host):
    """Mutation: hold a line back until the next one comes."""
    lines = host.follow(["sh", "-c", "echo $$; echo two; sleep 60"], timeout_s=10)
    pid = int(next(lines))
    assert next(lines) == "two" and alive(pid)
    lines.close()
    assert ended(pid)


def test_a_started_command_runs_until_it_is_stopped(host):
    """Mutation: end it when `start` returns."""
    process = host.start(["sleep", "60"])
    assert alive(process.pid)
    host.stop(process)
    assert ended(process.pid)


def test_commands_at_the_same_time_do_not_mix(host):
    """Mutation: use one mark for all, or one channel."""
    results = {}

    def run(number):
        results[number] = host.run(["sh", "-c", f"sleep 0.1; echo {number}"]).output

    threads = [threading.Thread(target=run, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == {number: f"{number}\n" for number in range(6)}


def test_a_host_without_a_free_session_is_an_error(start, connect):
    """Mutation: let ChannelException through."""
    host = connect(start("lab", "MaxSessions 1"))
    with host.start(["sleep", "60"]), pytest.raises(SetupError, match="no further session") as caught:
        host.run(["true"])
    assert "MaxSessions" in caught.value.hint


def test_a_server_killed_in_mid_command_is_a_lost_host(server, host):
    """Mutation: take the end of the stream for the end of the command, with status -1."""
    command = ["sh", "-c", "echo $$; exec sleep 60"]
    lines = host.follow(command, timeout_s=30)
    pid = int(next(lines))
    server.signal(signal.SIGKILL)
    began = time.monotonic()
    with pytest.raises(SetupError, match="connection lost") as caught:
        next(lines)
    assert not isinstance(caught.value, CommandError) and time.monotonic() - began < 10
    assert f"while: {shlex.join(command)}" in caught.value.evidence
    assert ended(pid)


def test_a_frozen_server_is_noticed_before_the_deadline(server, host):
    """Mutation: count on paramiko's keep-alive, which only sends: the read waits for ever."""
    threading.Timer(0.5, lambda: server.signal(signal.SIGSTOP)).start()
    began = time.monotonic()
    with pytest.raises(SetupError, match="no answer for 2 s: the host is frozen"):
        host.run(["sleep", "60"], timeout_s=30)
    assert time.monotonic() - began < 10


@pytest.mark.parametrize("call", ["run", "put"])
def test_a_server_frozen_before_a_call_ends_it_too(server, host, call, tmp_path):
    """Mutation: leave out the watching thread: paramiko waits for the reply to `exec` without a limit."""
    host.run(["true"])  # sshd makes the user's process after it let us in
    server.signal(signal.SIGSTOP)
    with pytest.raises(SetupError, match="no answer"):
        host.run(["true"], timeout_s=30) if call == "run" else host.put(server.config, tmp_path / "there")


def test_a_deadline_shorter_than_the_silence_holds_too(server, connect):
    """Mutation: open the channel with paramiko's own limit, an hour."""
    host = connect(server, limits=Limits(silence_s=30))
    host.run(["true"])  # sshd makes the user's process after it let us in
    server.signal(signal.SIGSTOP)
    began = time.monotonic()
    with pytest.raises(SetupError):
        host.run(["true"], timeout_s=0.5)
    assert time.monotonic() - began < 0.5 + LATE_S


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_the_far_process_is_gone_when_we_are_killed(server, number, tmp_path):
    """Mutation: leave out the program that waits for the end of its stdin: sleep stays there."""
    program = f"""
        from pathlib import Path
        from harness.host.ssh import SshHost
        with SshHost({server.name!r}, config=Path({str(server.config)!r})) as host:
            for line in host.follow(["sh", "-c", "echo $$; sleep 300 & sleep 300"]):
                print(line, flush=True)
        """
    us = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(program)],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env=dict(os.environ),
    )
    with us:
        leader = int(us.stdout.readline())
        there = [leader, *below(leader)]
        assert all(alive(pid) for pid in there)
        us.send_signal(number)
    assert all(ended(pid) for pid in there)


def test_a_file_goes_there_and_back(host, tmp_path):
    """Mutation: drop the permissions, or leave the part file."""
    content = os.urandom(3_000_001)
    local, there, back = tmp_path / "local", tmp_path / "far" / "a 'b", tmp_path / "back"
    there.parent.mkdir()
    local.write_bytes(content)
    local.chmod(0o750)
    host.put(local, there)
    assert there.read_bytes() == content and there.stat().st_mode & 0o777 == 0o750
    host.get(there, back)
    assert back.read_bytes() == content
    assert sorted(path.name for path in tmp_path.rglob("*.part")) == []
    before = there.stat().st_mtime_ns
    host.put(local, there)
    assert there.stat().st_mtime_ns == before


def part_of(there, content):
    return there.with_name(f"{there.name}.{hashlib.sha256(content).hexdigest()[:16]}.part")


def test_an_upload_is_resumed_after_a_cut(server, connect, tmp_path, monkeypatch):
    """Mutation: begin at 0 again."""
    content = os.urandom(8 << 20)
    local, there = tmp_path / "local", tmp_path / "there"
    local.write_bytes(content)
    host = connect(server)
    part = part_of(there, content)

    def cut():
        while not (part.exists() and part.stat().st_size > 1 << 20):
            time.sleep(0.001)
        server.signal(signal.SIGKILL)

    thread = threading.Thread(target=cut)
    thread.start()
    with pytest.raises(SetupError, match="connection lost"):
        for _ in range(1000):
            host.put(local, there)
            there.unlink()
    thread.join()
    server.process.wait()
    left = part.stat().st_size
    assert left > 1 << 20 and not there.exists()
    written = []
    monkeypatch.setattr("harness.host.ssh_files.BLOCK_BYTES", 1 << 15)
    import paramiko

    whole = paramiko.SFTPFile.write
    monkeypatch.setattr(
        paramiko.SFTPFile, "write", lambda self, data: (written.append(len(data)), whole(self, data))
    )
    server.start()
    connect(server).put(local, there)
    assert there.read_bytes() == content and not part.exists()
    assert sum(written) <= len(content) - left + (1 << 15)


def test_a_wrong_part_is_not_resumed(host, tmp_path):
    """Mutation: rename without a look at the digest."""
    content = os.urandom(1 << 20)
    local, there = tmp_path / "local", tmp_path / "there"
    local.write_bytes(content)
    part_of(there, content).write_bytes(bytes(1 << 19))
    host.put(local, there)
    assert there.read_bytes() == content


def test_files_that_cannot_be_moved_are_errors(host, tmp_path):
    """Mutation: let OSError through."""
    local = tmp_path / "local"
    local.write_text("x")
    with pytest.raises(SetupError, match="upload of local failed"):
        host.put(local, "/proc/none/there")
    with pytest.raises(SetupError, match="does not exist"):
        host.get(tmp_path / "none", tmp_path / "back")
    with pytest.raises(SetupError, match="cannot be read"):
        host.put(tmp_path / "none", tmp_path / "there")
    assert not Path(tmp_path / "back").exists()


def test_the_kernel_log_or_the_reason_is_returned(host):
    """Mutation: return nothing where dmesg is refused."""
    text = host.diagnose()
    assert text.startswith("kernel log not readable: ") or text.count("\n") > 3
