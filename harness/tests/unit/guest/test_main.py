"""The agent as a program, by the command lines that machine/start.sh and plan/tracing.py use."""

import os
import pty
import select
import subprocess
import sys

from harness import agent
from harness.values import codec
from harness.values.answer import Reply
from harness.values.case import Request

AGENT = [sys.executable, "-m", "harness.guest"]


def test_one_request_from_a_file(tmp_path):
    """Mutation: read another name than the option's; every machine and `trace` then fail at the start."""
    (tmp_path / "request").write_text(codec.dumps(Request(3, "wait")))
    argv = [*AGENT, "--request", str(tmp_path / "request")]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, codec.loads(Reply, done.stdout)) == (0, Reply(3, True)), done.stderr


def test_requests_are_answered_on_a_line(tmp_path):
    """Mutation: rename `--requests` or `--replies` in the parser only."""
    (tmp_path / "requests").write_bytes(agent.encode_request(Request(1, "wait")))
    host, line = pty.openpty()
    argv = [*AGENT, "--requests", str(tmp_path / "requests"), "--replies", os.ttyname(line)]
    with subprocess.Popen(argv, stderr=subprocess.DEVNULL) as process:
        try:
            text = b""
            while text.count(b"\n") < 2 and select.select([host], [], [], 30)[0]:
                text += os.read(host, 4096)
        finally:
            process.kill()
    os.close(host)
    os.close(line)
    replies = [codec.loads(Reply, one) for one in text.decode().splitlines()[:2]]
    assert [(reply.number, reply.ok) for reply in replies] == [(0, True), (1, True)]
