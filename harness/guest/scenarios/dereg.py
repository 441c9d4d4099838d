"""Registrations given back while the device faults on their memory.

The transfer that is under way ends well, or as one whose memory nobody may touch; it ends. When the kernel has given
the registration back the device has no more to do with that memory: not a byte of it changes afterwards.
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
from harness.guest.scenarios.pair import (
    LOCAL,
    REMOTE,
    Pair,
    compare,
)
from harness.values.case import Case

# How a transfer may end whose memory was given back, by the end whose memory that was; "" is success.
ENDS: Dict[int, Tuple[str, ...]] = {
    # The second one as rxe has it: see KNOWN.md, rxe-local-error
    LOCAL: ("", "IBV_WC_LOC_PROT_ERR", "IBV_WC_WR_FLUSH_ERR"),
    REMOTE: ("", "IBV_WC_REM_ACCESS_ERR"),
}
# How it must end if its memory was given back before it began.
FIRST = {LOCAL: "IBV_WC_LOC_PROT_ERR", REMOTE: "IBV_WC_REM_ACCESS_ERR"}
# And besides if its queues were told to give up before.
GIVEN_UP = ("IBV_WC_WR_FLUSH_ERR",)
_MARK = 0x4000
# A round is made again, up to so many times, until its transfer is under way when its memory goes: too early and too
# late say where the moment is, about, since no two transfers take the same time.
TRIES = 30
EARLY, UNDER_WAY, LATE = range(3)
_SLACK = 0.05


class Attempt(NamedTuple):
    """A round: how long the transfer is given before the registration goes, and whether the queues go first."""

    turn: int
    end: int
    delay_s: float
    giving_up: bool


def dereg(case: Case) -> List[int]:
    """The registration goes, the queues stay as they are."""
    return _rounds(case, giving_up=False)


def dereg_given_up(case: Case) -> List[int]:
    """The queues go to the state of errors, then the registration goes."""
    return _rounds(case, giving_up=True)


def dereg_first(case: Case) -> List[int]:
    """The registration has gone before the transfer begins: it fails, no byte moves, no page comes."""
    end = _end(case)
    times: List[int] = []
    for turn in range(1, case.workload.rounds + 1):
        began = time.monotonic_ns()
        with ExitStack() as stack:
            _too_late(Pair(case, stack), end, turn)
        times.append(time.monotonic_ns() - began)
    return times


def _too_late(pair: Pair, end: int, turn: int) -> None:
    memory = pair.memories[end]
    pair.lose(end)
    work = pair.work()
    pair.deregister(pair.registrations.pop(end))
    pair.connection.requester.post_send(work)
    status = pair.connection.end()
    come = pagemap.present(memory.pages_start, memory.pages)
    if (status, come) != (FIRST[end], 0):
        raise WorkFailed(
            f"round {turn}: the transfer ended with {status or 'success'}, not with {FIRST[end]}; {come} pages came"
        )
    compare(pair.memories, f"round {turn}, ")


def _end(case: Case) -> int:
    """Whose registration goes."""
    return LOCAL if case.workload.loss.side == "local" else REMOTE


def _rounds(case: Case, giving_up: bool) -> List[int]:
    draw = random.Random(case.seed)
    end = _end(case)
    times: List[int] = []
    usual_s = _usual_s(case, end)
    for turn in range(1, case.workload.rounds + 1):
        low_s, high_s = 0.0, usual_s
        for _ in range(TRIES):
            began = time.monotonic_ns()
            delay_s = draw.uniform(low_s, high_s)
            met = _shoot(case, Attempt(turn, end, delay_s, giving_up))
            if met == UNDER_WAY:
                break
            low_s, high_s = narrowed(met, delay_s, low_s, high_s)
        else:
            raise WorkFailed(
                f"round {turn}: {TRIES} times no transfer was under way, after {delay_s:g} s at last"
            )
        times.append(time.monotonic_ns() - began)
    return times


def narrowed(met: int, delay_s: float, low_s: float, high_s: float) -> Tuple[float, float]:
    """Between which delays to try again, after one that was too short or too long."""
    if met == EARLY:
        return delay_s, high_s * (1 + _SLACK)
    return low_s * (1 - _SLACK), delay_s


def _usual_s(case: Case, end: int) -> float:
    """How long the transfer takes that nobody disturbs."""
    with ExitStack() as stack:
        pair = Pair(case, stack)
        page_loss.LOSSES[case.workload.loss.method].act(pair.memories[end])
        began = time.monotonic()
        pair.transfer()
        return time.monotonic() - began


def _shoot(case: Case, shot: Attempt) -> int:
    """One round; returns whether the transfer had begun and was not over when its memory was given back.

    It has begun when there is a page, since all were lost; looking for them brings none.
    """
    with ExitStack() as stack:
        pair = Pair(case, stack)
        memory = pair.memories[shot.end]
        for one in pair.memories:
            one.fill(shot.turn)
        page_loss.LOSSES[case.workload.loss.method].act(memory)
        before = bytes(pair.memories[REMOTE].expected)
        pair.connection.requester.post_send(pair.work())
        time.sleep(shot.delay_s)
        come = pagemap.present(memory.pages_start, memory.pages)
        ended = pair.connection.poll()
        if shot.giving_up:
            pair.connection.give_up()
        pair.deregister(pair.registrations.pop(shot.end))
        memory.make_prompt()
        _check(pair, shot, before, ended)
        if ended is not None:
            return LATE
        return UNDER_WAY if come else EARLY


def _check(pair: Pair, shot: Attempt, before: bytes, ended: Optional[str]) -> None:
    remote, mine = pair.memories[REMOTE], pair.memories[shot.end]
    workloads.push_moves(*pair.memories)
    after, found = bytes(remote.expected), remote.found()
    mine.fill(shot.turn | _MARK)
    status = pair.connection.end() if ended is None else ended
    if status not in ENDS[shot.end] + (GIVEN_UP if shot.giving_up else ()):
        raise WorkFailed(f"round {shot.turn}: the transfer ended with {status}")
    if mine is not remote:
        found = remote.found()
    told = f"data: round {shot.turn}, {status or 'success'}"
    wrong = foreign(found, after if status == "" else before, after)
    if wrong:
        raise WorkFailed(f"{told}: {wrong} remote bytes are neither as before nor as they were to be")
    wrong, first = mine.difference()
    if wrong:
        raise WorkFailed(f"{told}: {wrong} bytes changed when the registration was gone: {first}")


def foreign(found: bytes, before: bytes, after: bytes) -> int:
    """How many bytes are neither what they were nor what they were to become."""
    count = 0
    for at in range(0, len(found), PAGE_BYTES):
        page = found[at : at + PAGE_BYTES]
        old, new = before[at : at + PAGE_BYTES], after[at : at + PAGE_BYTES]
        if page not in (old, new):
            count += sum(byte not in allowed for byte, *allowed in zip(page, old, new))
    return count
