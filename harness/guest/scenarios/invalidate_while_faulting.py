"""A page of a region is lost while the device waits for another one, which userfaultfd brings late.

A part of an implicit region loses its last page so and is destroyed, while a fault in it is under way; when that ends
the part has a page again, which is lost, too. Then the whole must still be given back.
Ref: Linux 7.3 drivers/infiniband/hw/mlx5/odp.c, destroy_unused_implicit_child_mr
"""

from __future__ import annotations

import ctypes
import time
from contextlib import ExitStack
from typing import List

from harness.guest.errors import WorkFailed
from harness.guest.mm import pagemap
from harness.guest.mm.libc import PAGE_BYTES
from harness.guest.mm.userfaultfd import DELAY_S
from harness.guest.rdma import workloads
from harness.guest.scenarios.pair import (
    LOCAL,
    REMOTE,
    Pair,
    compare,
)
from harness.values.case import Case

FIRST, AWAITED = range(2)
TRIES = 8


def overtaken(case: Case) -> List[int]:
    """Each round a page is lost that the device has, while it waits for the next one."""
    times: List[int] = []
    with ExitStack() as stack:
        pair = Pair(case, stack)
        for turn in range(1, case.workload.rounds + 1):
            began = time.monotonic_ns()
            for _ in range(TRIES):
                if _round(pair, turn):
                    break
            else:
                raise WorkFailed(f"round {turn}: {TRIES} times the page that was to be late had come")
            pair.register_anew(REMOTE, odp=True)
            times.append(time.monotonic_ns() - began)
    return times


def _round(pair: Pair, turn: int) -> bool:
    """Whether the device was waiting when the page was lost; WorkFailed if data is wrong."""
    remote = pair.memories[REMOTE]
    for memory in pair.memories:
        memory.fill(turn)
    pair.lose(REMOTE)
    _post(pair, FIRST)
    pair.connection.wait(1)
    remote.make_late()
    try:
        _post(pair, AWAITED)
        time.sleep(DELAY_S / 2)
        pair.lose(REMOTE, range(FIRST, FIRST + 1))
        waiting = not pagemap.present(remote.pages_start + AWAITED * PAGE_BYTES, 1)
        pair.connection.wait(1)
        wrong = _wrong(pair, AWAITED)
        # At once: a part that is to be destroyed is still there.
        pair.lose(REMOTE, range(AWAITED, AWAITED + 1))
    finally:
        remote.make_prompt()
    if wrong:
        raise WorkFailed(f"data: round {turn}: {wrong} bytes of the late page are wrong")
    compare(pair.memories, f"round {turn}, ")
    return waiting


def _post(pair: Pair, page: int) -> None:
    """Begin to write one page, and expect it there."""
    at = page * PAGE_BYTES
    here, there = (one.at(at) for one in pair.registrations)
    workloads.moved(pair.memories[LOCAL], at, pair.memories[REMOTE], at, PAGE_BYTES)
    pair.connection.requester.post_send(workloads.one_sided_work(here, there, PAGE_BYTES, "RDMA_WRITE"))


def _wrong(pair: Pair, page: int) -> int:
    """How many bytes of a page that is there are not as expected."""
    remote = pair.memories[REMOTE]
    at = remote.first + page * PAGE_BYTES
    found = ctypes.string_at(remote.pages_start + page * PAGE_BYTES, PAGE_BYTES)
    return sum(seen != wanted for seen, wanted in zip(found, remote.expected[at : at + PAGE_BYTES]))
