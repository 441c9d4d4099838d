"""The soak's parts that need no device: what transfers do to the expected bytes, and the thief."""

import time
from types import SimpleNamespace

import pytest

from harness.guest.errors import WorkFailed
from harness.guest.mm.memory import Memory
from harness.guest.rdma import workloads
from harness.guest.scenarios import soak
from harness.values.case import Region


@pytest.fixture
def lane():
    made = SimpleNamespace(number=0, memories=[Memory(Region(5000, 100, "shared"), tag) for tag in (1, 2)])
    for memory in made.memories:
        memory.fill(1)
    yield made
    for memory in made.memories:
        memory.close()


def test_a_transfer_moves_the_expected_bytes(lane):
    """Mutation: forget where the region begins; move the wrong way."""
    here, there = lane.memories
    before = bytes(there.expected)
    workloads.moved(here, 10, there, 700, 50)
    first = there.first + 700
    assert there.expected[first : first + 50] == here.expected[here.first + 10 : here.first + 60]
    assert there.expected[:first] == before[:first] and there.expected[first + 50 :] == before[first + 50 :]
    with pytest.raises(
        WorkFailed, match="data: round 3, lane 0, remote: .* bytes are wrong: region byte 700"
    ):
        soak.Lane.check(lane, 3)


def test_a_thief_takes_pages_but_no_bytes(lane):
    """Mutation: take private memory, which loses its bytes; never stop."""
    thief = soak.Thief([lane], seed=3)
    until = time.monotonic() + 5
    while thief.taken < 20 and time.monotonic() < until:
        time.sleep(0.005)
    thief.close()
    taken = thief.taken
    assert taken >= 20
    soak.Lane.check(lane, 1)
    time.sleep(0.02)
    assert thief.taken == taken
