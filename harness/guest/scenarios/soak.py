"""Random transfers over several connections while another thread invalidates random pages.

The memory is shared, so that invalidated pages keep their bytes: whatever the interleaving, the contents of each
region are known, and are compared after every round.
"""

from __future__ import annotations

import random
import threading
from contextlib import ExitStack
from dataclasses import replace
from typing import Any, Callable, List, NamedTuple

from harness.guest.mm import libc
from harness.guest.mm.libc import PAGE_BYTES
from harness.guest.rdma import workloads
from harness.guest.rdma.registration import Registration
from harness.guest.scenarios.pair import LOCAL, REMOTE, Pair, compare
from harness.guest.scenarios.registry import scenario, timed_rounds
from harness.values.case import Case

LANES = 4
MAX_BYTES = 64 << 10
# So many of a hundred rounds register one region again.
REGISTER_PERCENT = 2
MAX_NAP_S = 0.004


class Lane(Pair):
    """A pair whose memory is shared, one of several on one context, in a protection domain of its own."""

    def __init__(self, case: Case, context: Any, number: int, stack: ExitStack) -> None:
        work = case.workload
        shared = [replace(region, mapping="shared") for region in (work.local, work.remote)]
        case = replace(case, workload=replace(work, local=shared[0], remote=shared[1]))
        super().__init__(case, stack, context, number)
        self.number = number

    def check(self, number: int) -> None:
        """Raise WorkFailed if a byte of either region or around it is not as expected."""
        compare(self.memories, f"round {number}, lane {self.number}, ")


class Piece(NamedTuple):
    """A random part of both regions: its offset in each, and its length."""

    local: int
    remote: int
    length: int


def send(lane: Lane, piece: Piece) -> Callable[[], int]:
    """Prepare a receive into the remote part and a send of the local one."""
    import pyverbs.enums as e
    from pyverbs.wr import RecvWR, SendWR

    local, remote = lane.registrations
    receive = RecvWR(num_sge=1, sg=[_element(remote, piece.remote, piece.length)])
    element = _element(local, piece.local, piece.length)
    work = SendWR(opcode=e.IBV_WR_SEND, num_sge=1, sg=[element], send_flags=e.IBV_SEND_SIGNALED)

    def post() -> int:
        lane.connection.responder.post_recv(receive)
        lane.connection.requester.post_send(work)
        return 2

    workloads.moved(lane.memories[LOCAL], piece.local, lane.memories[REMOTE], piece.remote, piece.length)
    return post


def write(lane: Lane, piece: Piece) -> Callable[[], int]:
    """Prepare an RDMA write of the local part to the remote one."""
    workloads.moved(lane.memories[LOCAL], piece.local, lane.memories[REMOTE], piece.remote, piece.length)
    return _one_sided(lane, piece, "RDMA_WRITE")


def read(lane: Lane, piece: Piece) -> Callable[[], int]:
    """Prepare an RDMA read of the remote part into the local one."""
    workloads.moved(lane.memories[REMOTE], piece.remote, lane.memories[LOCAL], piece.local, piece.length)
    return _one_sided(lane, piece, "RDMA_READ")


PATTERNS = (send, write, read)


def _one_sided(lane: Lane, piece: Piece, opcode: str) -> Callable[[], int]:
    local, remote = lane.registrations
    work = workloads.one_sided_work(local.at(piece.local), remote.at(piece.remote), piece.length, opcode)

    def post() -> int:
        lane.connection.requester.post_send(work)
        return 1

    return post


def _element(registration: Registration, at: int, length: int) -> Any:
    from pyverbs.wr import SGE

    return SGE(registration.address + at, length, registration.lkey)


class Invalidator:
    """A thread that drops random pages of all regions until closed."""

    def __init__(self, lanes: List[Lane], seed: int) -> None:
        self._memories = [memory for lane in lanes for memory in lane.memories]
        self._draw = random.Random(seed)
        self._stop = threading.Event()
        self.calls = 0
        self._thread = threading.Thread(target=self._run, name="invalidator")
        self._thread.start()

    def _run(self) -> None:
        while not self._stop.wait(self._draw.random() * MAX_NAP_S):
            memory = self._draw.choice(self._memories)
            first = self._draw.randrange(memory.pages)
            count = self._draw.randint(1, memory.pages - first)
            libc.madvise(memory.pages_start + first * PAGE_BYTES, count * PAGE_BYTES, libc.MADV_DONTNEED)
            self.calls += 1

    def close(self) -> None:
        """Stop it."""
        self._stop.set()
        self._thread.join()


@scenario("soak")
def soak(case: Case) -> List[int]:
    """Run `rounds` rounds, or as many as fit into `seconds`, of one transfer on each lane."""
    from pyverbs.device import Context

    draw = random.Random(case.seed)
    with ExitStack() as stack:
        context = stack.enter_context(Context(name=case.device))
        lanes = [Lane(case, context, number, stack) for number in range(LANES)]
        stack.callback(Invalidator(lanes, case.seed).close)
        return timed_rounds(case, lambda number: _round(lanes, number, draw))


def _round(lanes: List[Lane], number: int, draw: random.Random) -> None:
    """Run one transfer on each lane, all at the same time."""
    if draw.randrange(100) < REGISTER_PERCENT:
        draw.choice(lanes).register_again(draw.randrange(2), odp=True)
    posts = []
    for lane in lanes:
        region_bytes = lane.memories[0].region.length
        length = min(1 << draw.randrange(17), MAX_BYTES, region_bytes)
        length = draw.randint((length + 1) // 2, length)
        piece = Piece(draw.randint(0, region_bytes - length), draw.randint(0, region_bytes - length), length)
        posts.append(draw.choice(PATTERNS)(lane, piece))
    pending = [(lane, post()) for lane, post in zip(lanes, posts)]
    for lane, completions in pending:
        lane.connection.wait(completions)
    for lane in lanes:
        lane.check(number)
