"""A long mixture: random transfers over several connections while another thread takes pages away at random.

The memory is shared, so that a page that is taken away keeps its bytes: whatever happens when, what each region
must hold is known, and is compared after every round.
"""

from __future__ import annotations

import random
import threading
import time
from contextlib import ExitStack
from dataclasses import replace
from typing import Any, Callable, Dict, List, NamedTuple

from harness.guest.mm import libc
from harness.guest.mm.libc import PAGE_BYTES
from harness.guest.rdma import workloads
from harness.guest.rdma.registration import Registration
from harness.guest.scenarios.pair import (
    LOCAL,
    REMOTE,
    Pair,
    compare,
)
from harness.values.case import Case

LANES = 4
LONGEST_BYTES = 64 << 10
MAX_TIMES = 1000
# Of a hundred rounds, how many register one region anew; and how long the thief sleeps at most.
REGISTERS_PERCENT = 2
NAP_S = 0.004


class Lane(Pair):
    """A pair whose memory is shared, one of several on one context, in a protection domain of its own."""

    def __init__(self, case: Case, context: Any, number: int, stack: ExitStack) -> None:
        work = case.workload
        shared = [replace(region, mapping="shared") for region in (work.local, work.remote)]
        case = replace(case, workload=replace(work, local=shared[0], remote=shared[1]))
        super().__init__(case, stack, context, number)
        self.number = number

    def check(self, turn: int) -> None:
        """Raise WorkFailed if a byte of either region or of its neighbours is not what it must be."""
        compare(self.memories, f"round {turn}, lane {self.number}, ")


class Piece(NamedTuple):
    """A random part of both regions: where it begins in each, and its length."""

    here: int
    there: int
    length: int


def send(lane: Lane, piece: Piece) -> Callable[[], int]:
    """A receive over the remote part, a send of the local one."""
    import pyverbs.enums as e
    from pyverbs.wr import RecvWR, SendWR

    here, there = lane.registrations
    receive = RecvWR(num_sge=1, sg=[_element(there, piece.there, piece.length)])
    element = _element(here, piece.here, piece.length)
    work = SendWR(opcode=e.IBV_WR_SEND, num_sge=1, sg=[element], send_flags=e.IBV_SEND_SIGNALED)

    def post() -> int:
        lane.connection.responder.post_recv(receive)
        lane.connection.requester.post_send(work)
        return 2

    workloads.moved(lane.memories[LOCAL], piece.here, lane.memories[REMOTE], piece.there, piece.length)
    return post


def write(lane: Lane, piece: Piece) -> Callable[[], int]:
    """An RDMA write of the local part over the remote one."""
    workloads.moved(lane.memories[LOCAL], piece.here, lane.memories[REMOTE], piece.there, piece.length)
    return _one_sided(lane, piece, "RDMA_WRITE")


def read(lane: Lane, piece: Piece) -> Callable[[], int]:
    """An RDMA read of the remote part over the local one."""
    workloads.moved(lane.memories[REMOTE], piece.there, lane.memories[LOCAL], piece.here, piece.length)
    return _one_sided(lane, piece, "RDMA_READ")


PATTERNS = (send, write, read)


def _one_sided(lane: Lane, piece: Piece, opcode: str) -> Callable[[], int]:
    here, there = lane.registrations
    work = workloads.one_sided_work(here.at(piece.here), there.at(piece.there), piece.length, opcode)

    def post() -> int:
        lane.connection.requester.post_send(work)
        return 1

    return post


def _element(registration: Registration, at: int, length: int) -> Any:
    from pyverbs.wr import SGE

    return SGE(registration.address + at, length, registration.lkey)


class Thief:
    """A thread that takes random pages of all regions away until it is stopped."""

    def __init__(self, lanes: List[Lane], seed: int) -> None:
        self._memories = [memory for lane in lanes for memory in lane.memories]
        self._draw = random.Random(seed)
        self._stop = threading.Event()
        self.taken = 0
        self._thread = threading.Thread(target=self._run, name="thief")
        self._thread.start()

    def _run(self) -> None:
        while not self._stop.wait(self._draw.random() * NAP_S):
            memory = self._draw.choice(self._memories)
            first = self._draw.randrange(memory.pages)
            count = self._draw.randint(1, memory.pages - first)
            libc.madvise(memory.pages_start + first * PAGE_BYTES, count * PAGE_BYTES, libc.MADV_DONTNEED)
            self.taken += 1

    def close(self) -> None:
        """Stop it."""
        self._stop.set()
        self._thread.join()


def soak(case: Case) -> List[int]:
    """Run `rounds` rounds, or as many as fit into `seconds`; the times of at most MAX_TIMES of them."""
    from pyverbs.device import Context

    times: Dict[int, int] = {}
    stride, turn = 1, 0
    draw = random.Random(case.seed)
    with ExitStack() as stack:
        context = stack.enter_context(Context(name=case.device))
        lanes = [Lane(case, context, number, stack) for number in range(LANES)]
        stack.callback(Thief(lanes, case.seed).close)
        until = time.monotonic() + case.workload.seconds
        while turn < case.workload.rounds or time.monotonic() < until:
            turn += 1
            began = time.monotonic_ns()
            _round(lanes, turn, draw)
            if turn % stride == 0:
                times[turn] = time.monotonic_ns() - began
            if len(times) > MAX_TIMES:
                stride *= 2
                times = {number: spent for number, spent in times.items() if number % stride == 0}
    return list(times.values())


def _round(lanes: List[Lane], turn: int, draw: random.Random) -> None:
    """One transfer on each lane, all at the same time."""
    if draw.randrange(100) < REGISTERS_PERCENT:
        draw.choice(lanes).register_anew(draw.randrange(2), odp=True)
    posts = []
    for lane in lanes:
        room = lane.memories[0].region.length
        length = min(1 << draw.randrange(17), LONGEST_BYTES, room)
        length = draw.randint((length + 1) // 2, length)
        piece = Piece(draw.randint(0, room - length), draw.randint(0, room - length), length)
        posts.append(draw.choice(PATTERNS)(lane, piece))
    waiting = [(lane, post()) for lane, post in zip(lanes, posts)]
    for lane, completions in waiting:
        lane.connection.wait(completions)
    for lane in lanes:
        lane.check(turn)
