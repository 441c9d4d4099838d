"""Several queue pairs at once on one region: their faults meet on the same pages, or side by side."""

from __future__ import annotations

import time
from contextlib import ExitStack
from typing import Any, List, Tuple

from harness.guest.mm.libc import PAGE_BYTES
from harness.guest.rdma import workloads
from harness.guest.scenarios.pair import (
    LOCAL,
    REMOTE,
    Pair,
    compare,
)
from harness.values.case import Case

QUEUES = 4
MOVES = {"RDMA_WRITE": workloads.push_moves, "RDMA_READ": workloads.pull_moves}


def queues(case: Case) -> List[int]:
    """Each round every queue writes every QUEUES-th page, all at once; then each of them writes the whole region; then
    both again with reads.
    """
    from harness.guest.rdma.connection import Connection

    times: List[int] = []
    with ExitStack() as stack:
        pair = Pair(case, stack)
        length = pair.memories[LOCAL].region.length
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
            for number, opcode in enumerate(MOVES):
                for nth, pieces in enumerate((side_by_side(length), [[(0, length)]] * QUEUES)):
                    _fill_and_lose(pair, 4 * turn + 2 * number + nth)
                    _all_at_once(pair, pieces, connections, opcode)
                    compare(pair.memories, f"round {turn}, {opcode}, ")
            times.append(time.monotonic_ns() - began)
    return times


def side_by_side(length: int) -> List[List[Tuple[int, int]]]:
    """(offset, length) of what each queue moves: pages in turn."""
    starts = range(0, length, PAGE_BYTES)
    return [[(at, min(PAGE_BYTES, length - at)) for at in starts[number::QUEUES]] for number in range(QUEUES)]


def _fill_and_lose(pair: Pair, number: int) -> None:
    """Both ends lose their pages; those of shared memory keep their bytes."""
    for memory in pair.memories:
        memory.fill(number)
    for end in (LOCAL, REMOTE):
        pair.lose(end)


def _all_at_once(
    pair: Pair, pieces: List[List[Tuple[int, int]]], connections: List[Any], opcode: str
) -> None:
    here, there = pair.registrations
    for nth in range(max(map(len, pieces))):
        for connection, mine in zip(connections, pieces):
            for at, length in mine[nth : nth + 1]:
                work = workloads.one_sided_work(here.at(at), there.at(at), length, opcode)
                connection.requester.post_send(work)
    for connection, mine in zip(connections, pieces):
        connection.wait(len(mine))
    MOVES[opcode](*pair.memories)
