"""A child process: its report, and the wait for its exit."""

import os
import time
from types import SimpleNamespace

import pytest

from harness.guest.errors import WorkFailed
from harness.guest.mm.memory import Memory
from harness.guest.scenarios import child as child_module
from harness.guest.scenarios.child import Child, report_memory
from harness.values.case import Region


@pytest.fixture
def pair():
    memory = Memory(Region(3 * 4096), 1)
    yield SimpleNamespace(memories=[memory, memory])
    memory.close()


def test_child_reports_its_memory_and_its_wait_status(pair):
    """Mutation: report one memory only; return the child's pid."""

    def main(fd):
        report_memory(fd, pair)
        os._exit(3)

    child = Child(main, 1, 5.0)
    memory = pair.memories[0]
    assert child._memories == [(memory.pages_start, 3)] * 2
    assert child.wait() == 3 << 8


def test_early_exit_is_an_error():
    """Mutation: accept an empty report."""
    with pytest.raises(WorkFailed, match="before its first transfer"):
        Child(lambda fd: os._exit(0), 1, 5.0).wait()


def test_child_that_stays_is_an_error(pair):
    """Mutation: wait without a timeout."""

    def main(fd):
        report_memory(fd, pair)
        time.sleep(1)
        os._exit(0)

    child = Child(main, 4, 0.05)
    with pytest.raises(WorkFailed, match="round 4: the process is still there"):
        child.wait()
    os.waitpid(child.pid, 0)


def test_leaked_frames_of_a_child_are_an_error(pair, monkeypatch):
    """Mutation: drop the recorded frames at its exit."""
    left = SimpleNamespace(after=2, resource="pages neither mapped nor freed")
    monkeypatch.setattr(child_module.Frames, "leaked", lambda frames: (left,))

    def main(fd):
        report_memory(fd, pair)
        os._exit(0)

    with pytest.raises(WorkFailed, match="round 1: 2 pages neither mapped"):
        Child(main, 1, 5.0).wait()
