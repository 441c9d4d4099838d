"""Every set of access rights with every one-sided operation: what is allowed is done, what is not touches no page."""

from __future__ import annotations

import time
from contextlib import ExitStack
from typing import Dict, List, NamedTuple

from harness.guest import pages, workloads
from harness.guest import registration as registrations
from harness.guest.pair import REMOTE, Pair, compare
from harness.guest.problems import WorkFailed
from harness.guest.registration import (
    ACCESS_ALL,
    ACCESS_LOCAL_WRITE,
    ACCESS_ON_DEMAND,
    ACCESS_REMOTE_ATOMIC,
    ACCESS_REMOTE_READ,
    ACCESS_REMOTE_WRITE,
)
from harness.values.case import Case

REFUSED = "IBV_WC_REM_ACCESS_ERR"


class Operation(NamedTuple):
    """What is asked of the remote region, and the right that it needs there."""

    opcode: str
    right: int


OPERATIONS: Dict[str, Operation] = {
    "write": Operation("RDMA_WRITE", ACCESS_REMOTE_WRITE),
    "read": Operation("RDMA_READ", ACCESS_REMOTE_READ),
}
# Who may write from afar must be able to write from near. Ref: Linux 7.3 include/rdma/ib_verbs.h, ib_check_mr_access
SETS: Dict[str, int] = {
    "none": 0,
    "local write": ACCESS_LOCAL_WRITE,
    "remote read": ACCESS_REMOTE_READ,
    "local and remote write": ACCESS_LOCAL_WRITE | ACCESS_REMOTE_WRITE,
    "local write, remote read": ACCESS_LOCAL_WRITE | ACCESS_REMOTE_READ,
    "local write, remote atomic": ACCESS_LOCAL_WRITE | ACCESS_REMOTE_ATOMIC,
    "all": ACCESS_ALL,
}


def rights(case: Case) -> List[int]:
    """Each round all sets with all operations, each with queues of its own, since a refusal is their end."""
    times: List[int] = []
    problems: List[str] = []
    for turn in range(1, case.workload.rounds + 1):
        began = time.monotonic_ns()
        for name, access in SETS.items():
            for operation in OPERATIONS:
                try:
                    _try(case, access, operation, turn)
                except WorkFailed as error:
                    problems.append(f"{operation}, rights: {name}: {error}")
        times.append(time.monotonic_ns() - began)
    if problems:
        raise WorkFailed("; ".join(problems))
    return times


def _try(case: Case, access: int, name: str, turn: int) -> None:
    operation = OPERATIONS[name]
    with ExitStack() as stack:
        pair = Pair(case, stack)
        remote = pair.memories[REMOTE]
        pair.deregister(pair.registrations.pop())
        pair.registrations.append(_register(pair, access))
        for memory in pair.memories:
            memory.fill(turn)
        pair.lose(REMOTE)
        pair.connection.requester.post_send(pair.work(operation.opcode))
        ended = pair.connection.end()
        come = pages.present(remote.pages_start, remote.pages)
        allowed = bool(access & operation.right)
        if allowed and not ended:
            moves = workloads.pull_moves if name == "read" else workloads.push_moves
            moves(*pair.memories)
        expected = ("", remote.pages) if allowed else (REFUSED, 0)
        if (ended, come) != expected:
            raise WorkFailed(
                f"expected {expected[0] or 'success'} and {expected[1]} pages in memory,"
                f" it was {ended or 'success'} and {come}"
            )
        compare(pair.memories)


def _register(pair: Pair, access: int) -> registrations.Registration:
    connection, memory = pair.connection, pair.memories[REMOTE]
    start, length = memory.start, memory.region.length
    return registrations.register(
        connection.context.cmd_fd, connection.pd.handle, start, length, start, access | ACCESS_ON_DEMAND
    )
