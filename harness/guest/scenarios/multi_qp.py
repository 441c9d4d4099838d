"""Several queue pairs at once on one region: their faults hit the same pages, or neighbouring ones."""

from __future__ import annotations

from contextlib import ExitStack
from typing import Any, List, Tuple

from harness.guest.mm.libc import PAGE_BYTES
from harness.guest.rdma import workloads
from harness.guest.scenarios.pair import LOCAL, REMOTE, Pair, compare
from harness.guest.scenarios.registry import scenario, timed_rounds
from harness.values.case import Case

QUEUES = 4
MOVES = {"RDMA_WRITE": workloads.push_moves, "RDMA_READ": workloads.pull_moves}


@scenario("multi_qp")
def multi_qp(case: Case) -> List[int]:
    """Write every QUEUES-th page by each QP, then the whole region by each; then the same with reads."""
    from harness.guest.rdma.connection import Connection

    with ExitStack() as stack:
        pair = Pair(case, stack)
        length = pair.memories[LOCAL].region.length
        connections = [pair.connection]
        for _ in range(QUEUES - 1):
            another = Connection(
                case.device,
                case.workload.mtu_bytes,
                case.timeout_s,
                pair.connection.context,
                pair.connection.pd,
            )
            stack.callback(another.close)
            connections.append(another)

        def one_round(number: int) -> None:
            for nth_opcode, opcode in enumerate(MOVES):
                for nth, pieces in enumerate((interleaved(length), [[(0, length)]] * QUEUES)):
                    _fill_and_invalidate(pair, 4 * number + 2 * nth_opcode + nth)
                    _all_at_once(pair, pieces, connections, opcode)
                    compare(pair.memories, f"round {number}, {opcode}, ")

        return timed_rounds(case, one_round)


def interleaved(length: int) -> List[List[Tuple[int, int]]]:
    """Return (offset, length) of each piece that each QP moves: every QUEUES-th page."""
    starts = range(0, length, PAGE_BYTES)
    return [[(at, min(PAGE_BYTES, length - at)) for at in starts[nth::QUEUES]] for nth in range(QUEUES)]


def _fill_and_invalidate(pair: Pair, number: int) -> None:
    """Fill both ends, then drop their pages; those of shared memory keep their bytes."""
    for memory in pair.memories:
        memory.fill(number)
    for end in (LOCAL, REMOTE):
        pair.invalidate(end)


def _all_at_once(
    pair: Pair, pieces: List[List[Tuple[int, int]]], connections: List[Any], opcode: str
) -> None:
    local, remote = pair.registrations
    for nth in range(max(map(len, pieces))):
        for connection, own in zip(connections, pieces):
            for at, length in own[nth : nth + 1]:
                work = workloads.one_sided_work(local.at(at), remote.at(at), length, opcode)
                connection.requester.post_send(work)
    for connection, own in zip(connections, pieces):
        connection.wait(len(own))
    MOVES[opcode](*pair.memories)
