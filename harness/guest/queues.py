"""Several queue pairs at once on one region: their faults meet on the same pages, or side by side."""

from __future__ import annotations

import time
from contextlib import ExitStack
from typing import Any, List, Tuple

from harness.guest import workloads
from harness.guest.libc import PAGE_BYTES
from harness.guest.pair import LOCAL, REMOTE, Pair, compare
from harness.values.case import Case

QUEUES = 4


def queues(case: Case) -> List[int]:
    """Each round every queue writes every QUEUES-th page, all at once; then each of them writes the whole region."""
    from harness.guest.connection import Connection

    times: List[int] = []
    with ExitStack() as stack:
        pair = Pair(case, stack)
        connections = [pair.connection]
        for _ in range(QUEUES - 1):
            more = Connection(
                case.device,
                case.workload.mtu_bytes,
                case.timeout_s,
                pair.connection.context,
                pair.connection.pd,
            )
            stack.callback(more.close)
            connections.append(more)
        for turn in range(1, case.workload.rounds + 1):
            began = time.monotonic_ns()
            _round(pair, 2 * turn, side_by_side(pair.memories[LOCAL].region.length), connections)
            _round(pair, 2 * turn + 1, [[(0, pair.memories[LOCAL].region.length)]] * QUEUES, connections)
            times.append(time.monotonic_ns() - began)
    return times


def side_by_side(length: int) -> List[List[Tuple[int, int]]]:
    """(offset, length) of what each queue writes: pages in turn."""
    starts = range(0, length, PAGE_BYTES)
    return [[(at, min(PAGE_BYTES, length - at)) for at in starts[number::QUEUES]] for number in range(QUEUES)]


def _round(pair: Pair, turn: int, pieces: List[List[Tuple[int, int]]], connections: List[Any]) -> None:
    """Both ends lose their pages, of which the local ones are shared memory and keep their bytes."""
    for memory in pair.memories:
        memory.fill(turn)
    for end in (LOCAL, REMOTE):
        pair.lose(end)
    here, there = pair.registrations
    for nth in range(max(map(len, pieces))):
        for connection, mine in zip(connections, pieces):
            for at, length in mine[nth : nth + 1]:
                work = workloads.one_sided_work(here.at(at), there.at(at), length, "RDMA_WRITE")
                connection.requester.post_send(work)
    for connection, mine in zip(connections, pieces):
        connection.wait(len(mine))
    workloads.push_moves(*pair.memories)
    compare(pair.memories, f"round {turn // 2}, ")
