"""A stored case in a real guest under a real gdb."""

import os
import pty
import re
import select
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from harness.plan.plan import load
from harness.plan.runner import CaseRunner
from harness.results.record import RunStore
from harness.tests.vm.conftest import CHECKOUT, FULL, environment, processes, start_harness

PLAN = Path(__file__).parents[3] / "testplans" / "odp-write.toml"
STOP = "rxe_odp_map_range_and_lock"

pytestmark = [
    pytest.mark.skipif(not FULL, reason="builds rdma_rxe and ib_core: ODP_FULL=1"),
    pytest.mark.skipif(not shutil.which("gdb"), reason="no gdb: apt-get install gdb"),
]


@pytest.fixture(scope="module")
def record(session, tmp_path_factory):
    """Store the record of a case with the kernel's own modules."""
    folder = tmp_path_factory.mktemp("run")
    made, _ = CaseRunner(session).run(next(load(PLAN).cases(("newest",), devices=("soft-roce",))))
    assert made.verdict == "pass", made.reasons
    return RunStore.create(folder / "results").add(made)


def held(record, log):
    """Start a replay whose machine waits for gdb; return it and gdb's command file."""
    child = start_harness(log, "replay", record, "--gdb=print")
    until = time.monotonic() + 600
    while not (match := re.search(r"^gdb -q -x (\S+)$", log.read_text(), re.M)):
        assert child.poll() is None and time.monotonic() < until, log.read_text()
        time.sleep(0.2)
    return child, Path(match[1])


def batch(commands, tmp_path, *lines):
    """Run commands in gdb and return its output."""
    script = tmp_path / "more.gdb"
    script.write_text("\n".join(lines) + "\n")
    done = subprocess.run(
        ["gdb", "-q", "-nx", "-batch", "-x", commands, "-x", script],
        capture_output=True,
        text=True,
        timeout=120,
        stdin=subprocess.DEVNULL,
    )
    return done.stdout + done.stderr


def gone(commands):
    """Return whether no process of the run is left; its folder may be there until the next start."""
    return not processes(str(commands.parents[1]))


def test_a_breakpoint_in_the_driver_has_function_file_and_line(record, tmp_path):
    """Break in rdma_rxe and list its source.

    Mutations: leave out a section's address; take the symbols of another build; do not hold the machine (the breakpoint
    comes too late); do not stop at the case's end (the second `continue` never returns).
    """
    child, commands = held(record, tmp_path / "log")
    output = batch(commands, tmp_path, f"break {STOP}", "continue", "bt 2", "list", "delete", "continue")
    assert re.search(rf"^#0 +{STOP} \(mr=.*\) at \S*rxe_odp\.c:\d+$", output, re.M), output
    assert re.search(r"^#1 .* in rxe_odp_mr_copy \(.*\) at \S*rxe_odp\.c:\d+$", output, re.M), output
    assert re.search(rf"^\d+\tstatic int {STOP}\(struct rxe_mr \*mr, u64 iova", output, re.M), output
    assert child.wait(60) == 0
    assert re.search("^answers (otherwise|the same)", (tmp_path / "log").read_text(), re.M)
    assert gone(commands)


def test_a_replay_without_a_stop_ends(record, tmp_path):
    """Do not compare times: on a busy host plain replays of the case differed by 64 ns, too.

    Mutation: end the machine with the case's deadline, or when gdb is there.
    """
    child, commands = held(record, tmp_path / "log")
    batch(commands, tmp_path, "break rxe_ib_advise_mr", "continue")
    assert child.wait(60) == 0
    assert re.search("^answers (otherwise|the same)", (tmp_path / "log").read_text(), re.M)


def test_ctrl_c_without_gdb_leaves_nothing(record, tmp_path):
    """Mutation: wait for a gdb that never comes."""
    child, commands = held(record, tmp_path / "log")
    os.killpg(child.pid, signal.SIGINT)
    assert child.wait(30) != 0
    assert gone(commands)


class Screen:
    """A terminal that runs the harness."""

    def __init__(self, *argv):
        self.seen = ""
        self.pid, self._end = pty.fork()
        if not self.pid:
            os.chdir(CHECKOUT)
            os.execve(
                sys.executable, [sys.executable, "-m", "harness", *map(str, argv)], environment(TERM="dumb")
            )

    def upto(self, words, timeout_s=60.0):
        """Read until the words appear; return the text before them."""
        until = time.monotonic() + timeout_s
        while words not in self.seen:
            assert time.monotonic() < until, self.seen[-2000:]
            if select.select([self._end], [], [], 0.2)[0]:
                self.seen += os.read(self._end, 65536).decode(errors="replace")
        before, _, self.seen = self.seen.partition(words)
        return before

    def type(self, text):
        """Type."""
        os.write(self._end, text.encode())


def test_ctrl_c_stops_the_guest_and_the_session_ends_with_gdb(record):
    """Mutations: leave SIGINT blocked in gdb (it never stops again); end the machine at the case's deadline."""
    screen = Screen("replay", record, "--gdb")
    try:
        screen.upto("(gdb) ", 600)
        children = Path(f"/proc/{screen.pid}/task/{screen.pid}/children").read_text().split()
        assert len(children) == 2, children
        screen.type("continue\n")
        screen.upto("the case has answered")
        screen.upto("(gdb) ")
        screen.type("continue\n")
        screen.upto("Continuing.")
        time.sleep(1)
        screen.type("\x03")
        assert "SIGINT" in screen.upto("(gdb) ")
        screen.type("quit\n")
        screen.upto("answers")
        _, status = os.waitpid(screen.pid, 0)
        assert os.waitstatus_to_exitcode(status) == 0
        assert not [child for child in children if Path(f"/proc/{child}").exists()]
    except BaseException:
        os.kill(screen.pid, signal.SIGKILL)
        raise
