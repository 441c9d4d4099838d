"""The soak's parts that need no device: expected bytes of transfers, and the invalidating thread."""

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


def test_transfer_moves_the_expected_bytes(lane):
    """Mutation: forget where the region begins; move the wrong way."""
    local, remote = lane.memories
    before = bytes(remote.expected)
    workloads.moved(local, 10, remote, 700, 50)
    first = remote.first + 700
    assert remote.expected[first : first + 50] == local.expected[local.first + 10 : local.first + 60]
    assert remote.expected[:first] == before[:first] and remote.expected[first + 50 :] == before[first + 50 :]
    with pytest.raises(
        WorkFailed, match="data: round 3, lane 0, remote: .* bytes are wrong: region byte 700"
    ):
        soak.Lane.check(lane, 3)


def test_invalidated_pages_keep_their_bytes(lane):
    """Mutation: invalidate private memory, which loses its bytes; never stop."""
    invalidator = soak.Invalidator([lane], seed=3)
    until = time.monotonic() + 5
    while invalidator.calls < 20 and time.monotonic() < until:
        time.sleep(0.005)
    invalidator.close()
    calls = invalidator.calls
    assert calls >= 20
    soak.Lane.check(lane, 1)
    time.sleep(0.02)
    assert invalidator.calls == calls
