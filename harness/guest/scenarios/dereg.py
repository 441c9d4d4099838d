"""Deregister a region while the device faults on it.

The transfer in progress completes, with success or with the error of an invalid key. Once the deregistration has
returned, the device must not touch that memory: no byte of it changes any more.
"""

from __future__ import annotations

import random
import time
from contextlib import ExitStack
from typing import Dict, List, NamedTuple, Optional, Tuple

from harness.guest.errors import WorkFailed
from harness.guest.mm import page_loss, pagemap
from harness.guest.mm.libc import PAGE_BYTES
from harness.guest.rdma import workloads
from harness.guest.scenarios.pair import LOCAL, REMOTE, Pair, compare
from harness.guest.scenarios.registry import scenario, timed_rounds
from harness.values.case import Case

# Status with which a transfer may complete whose region was deregistered, by the region's end; "" is success.
ALLOWED: Dict[int, Tuple[str, ...]] = {
    # The second error is rxe's: see docs/known-defects.md, rxe-local-error
    LOCAL: ("", "IBV_WC_LOC_PROT_ERR", "IBV_WC_WR_FLUSH_ERR"),
    REMOTE: ("", "IBV_WC_REM_ACCESS_ERR"),
}
# The only status of a transfer posted after the deregistration.
AFTER_DEREG = {LOCAL: "IBV_WC_LOC_PROT_ERR", REMOTE: "IBV_WC_REM_ACCESS_ERR"}
# Allowed besides if the queue pairs were in the error state.
QP_ERROR = ("IBV_WC_WR_FLUSH_ERR",)
_MARK = 0x4000
# A round is repeated, up to this often, until its transfer is in progress at the deregistration: EARLY and LATE tries
# narrow the delay down, roughly, since no two transfers take the same time.
MAX_TRIES = 30
EARLY, IN_PROGRESS, LATE = range(3)
_SLACK = 0.05


class Attempt(NamedTuple):
    """One try: which end's region is deregistered how long after the post, and whether the QPs go to error first."""

    number: int
    end: int
    delay_s: float
    qp_error: bool


@scenario("dereg")
def dereg(case: Case) -> List[int]:
    """Deregister under a transfer; the queue pairs stay in RTS."""
    return _rounds(case, qp_error=False)


@scenario("dereg_qp_error")
def dereg_qp_error(case: Case) -> List[int]:
    """Move the queue pairs to the error state, then deregister."""
    return _rounds(case, qp_error=True)


@scenario("use_after_dereg")
def use_after_dereg(case: Case) -> List[int]:
    """Deregister, then post: the transfer must fail, without moving a byte or bringing in a page."""
    end = _end(case)

    def one_round(number: int) -> None:
        with ExitStack() as stack:
            _post_after_dereg(Pair(case, stack), end, number)

    return timed_rounds(case, one_round)


def _post_after_dereg(pair: Pair, end: int, number: int) -> None:
    memory = pair.memories[end]
    pair.invalidate(end)
    work = pair.work()
    pair.deregister(pair.registrations.pop(end))
    pair.connection.requester.post_send(work)
    status = pair.connection.end()
    present = pagemap.present(memory.pages_start, memory.pages)
    if (status, present) != (AFTER_DEREG[end], 0):
        raise WorkFailed(
            f"round {number}: the transfer ended with {status or 'success'}, not with {AFTER_DEREG[end]};"
            f" {present} pages are present"
        )
    compare(pair.memories, f"round {number}, ")


def _end(case: Case) -> int:
    """Return the end whose region is deregistered."""
    return LOCAL if case.workload.loss.side == "local" else REMOTE


def _rounds(case: Case, qp_error: bool) -> List[int]:
    draw = random.Random(case.seed)
    end = _end(case)
    usual_s = _usual_s(case, end)
    ranges: Dict[int, Tuple[float, float]] = {}

    def one_round(number: int) -> Optional[str]:
        low_s, high_s = ranges.get(number, (0.0, usual_s))
        delay_s = draw.uniform(low_s, high_s)
        met = _try(case, Attempt(number, end, delay_s, qp_error))
        if met == IN_PROGRESS:
            return None
        ranges[number] = narrowed(met, delay_s, low_s, high_s)
        return f"no transfer was in progress after {delay_s:g} s"

    return timed_rounds(case, one_round, MAX_TRIES)


def narrowed(met: int, delay_s: float, low_s: float, high_s: float) -> Tuple[float, float]:
    """Return the range of delays for the next try, after one that was EARLY or LATE."""
    if met == EARLY:
        return delay_s, high_s * (1 + _SLACK)
    return low_s * (1 - _SLACK), delay_s


def _usual_s(case: Case, end: int) -> float:
    """Measure how long an undisturbed transfer takes."""
    with ExitStack() as stack:
        pair = Pair(case, stack)
        page_loss.METHODS[case.workload.loss.method].act(pair.memories[end])
        began = time.monotonic()
        pair.transfer()
        return time.monotonic() - began


def _try(case: Case, attempt: Attempt) -> int:
    """Deregister after the attempt's delay; return whether that was EARLY, IN_PROGRESS or LATE.

    A transfer has begun when a page is present, since all were absent; looking at the page map brings in none.
    """
    with ExitStack() as stack:
        pair = Pair(case, stack)
        memory = pair.memories[attempt.end]
        for each in pair.memories:
            each.fill(attempt.number)
        page_loss.METHODS[case.workload.loss.method].act(memory)
        before = bytes(pair.memories[REMOTE].expected)
        pair.connection.requester.post_send(pair.work())
        time.sleep(attempt.delay_s)
        present = pagemap.present(memory.pages_start, memory.pages)
        status = pair.connection.poll()
        if attempt.qp_error:
            pair.connection.to_error()
        pair.deregister(pair.registrations.pop(attempt.end))
        memory.stop_delaying()
        _check(pair, attempt, before, status)
        if status is not None:
            return LATE
        return IN_PROGRESS if present else EARLY


def _check(pair: Pair, attempt: Attempt, before: bytes, polled: Optional[str]) -> None:
    remote, deregistered = pair.memories[REMOTE], pair.memories[attempt.end]
    workloads.push_moves(*pair.memories)
    after, content = bytes(remote.expected), remote.content()
    deregistered.fill(attempt.number | _MARK)
    status = pair.connection.end() if polled is None else polled
    if status not in ALLOWED[attempt.end] + (QP_ERROR if attempt.qp_error else ()):
        raise WorkFailed(f"round {attempt.number}: the transfer ended with {status}")
    if deregistered is not remote:
        content = remote.content()
    where = f"data: round {attempt.number}, {status or 'success'}"
    wrong = foreign(content, after if status == "" else before, after)
    if wrong:
        raise WorkFailed(f"{where}: {wrong} remote bytes are neither old nor new")
    wrong, first = deregistered.difference()
    if wrong:
        raise WorkFailed(f"{where}: {wrong} bytes changed after the deregistration: {first}")


def foreign(content: bytes, before: bytes, after: bytes) -> int:
    """Count the bytes that are neither as before the transfer nor as after it."""
    count = 0
    for at in range(0, len(content), PAGE_BYTES):
        page = content[at : at + PAGE_BYTES]
        old, new = before[at : at + PAGE_BYTES], after[at : at + PAGE_BYTES]
        if page not in (old, new):
            count += sum(byte not in allowed for byte, *allowed in zip(page, old, new))
    return count
