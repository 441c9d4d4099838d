"""A child that is to end: it is waited for, and no longer than that."""

import os
import time
from types import SimpleNamespace

import pytest

from harness.guest.errors import WorkFailed
from harness.guest.mm.memory import Memory
from harness.guest.scenarios import victim
from harness.guest.scenarios.victim import (
    Victim,
    tell,
)
from harness.values.case import Region


@pytest.fixture
def pair():
    memory = Memory(Region(3 * 4096), 1)
    yield SimpleNamespace(memories=[memory, memory])
    memory.close()


def test_a_victim_says_where_its_memory_is_and_how_it_ended(pair):
    """Mutation: tell of one memory only; return the child's number."""

    def live(say):
        tell(say, pair)
        os._exit(3)

    child = Victim(live, 1, 5.0)
    memory = pair.memories[0]
    assert child._places == [(memory.pages_start, 3)] * 2
    assert child.see_off() == 3 << 8


def test_a_victim_that_ends_too_early_is_told_of():
    """Mutation: take nothing for an answer."""
    with pytest.raises(WorkFailed, match="before its first transfer"):
        Victim(lambda say: os._exit(0), 1, 5.0).see_off()


def test_a_victim_that_stays_is_told_of(pair):
    """Mutation: wait without an end."""

    def live(say):
        tell(say, pair)
        time.sleep(1)
        os._exit(0)

    child = Victim(live, 4, 0.05)
    with pytest.raises(WorkFailed, match="round 4: the process is still there"):
        child.see_off()
    os.waitpid(child.pid, 0)


def test_pages_that_a_victim_left_are_told_of(pair, monkeypatch):
    """Mutation: forget the frames when it is gone."""
    left = SimpleNamespace(after=2, resource="pages that nobody maps and nobody freed")
    monkeypatch.setattr(victim.Frames, "left", lambda frames: (left,))

    def live(say):
        tell(say, pair)
        os._exit(0)

    with pytest.raises(WorkFailed, match="round 1: 2 pages that nobody maps"):
        Victim(live, 1, 5.0).see_off()
