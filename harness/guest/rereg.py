"""Regions whose registration is changed in place: it works, or it is refused, and the data is right after either.

Ref: rdma-core 56 libibverbs/man/ibv_rereg_mr.3; Linux 7.3 drivers/infiniband/core/uverbs_cmd.c, ib_uverbs_rereg_mr
"""

from __future__ import annotations

import ctypes
import os
import struct
import time
from contextlib import ExitStack
from typing import List, NamedTuple, Tuple

from harness.guest import registration as registrations
from harness.guest.memory import Memory
from harness.guest.pair import REMOTE, Pair
from harness.guest.problems import WorkFailed
from harness.guest.registration import ACCESS_ALL, ACCESS_ON_DEMAND, ACCESS_REMOTE_ATOMIC, ACCESS_REMOTE_READ
from harness.guest.rights import REFUSED
from harness.values.case import Case

# Ref: Linux 7.3 include/uapi/rdma/ib_user_verbs.h: IB_USER_VERBS_CMD_REREG_MR, struct ib_uverbs_rereg_mr and its
# response; include/rdma/ib_verbs.h, enum ib_mr_rereg_flags
CMD_REREG_MR = 11
_REREG_MR = struct.Struct("=IHHQIIQQQII")
_RESPONSE = struct.Struct("=II")
TRANSLATION, PD, ACCESS = 1, 2, 4
TAKEN = ACCESS_REMOTE_READ | ACCESS_REMOTE_ATOMIC


class Change(NamedTuple):
    """One call: what is changed, as flags; `toggles` says whether on-demand paging goes on or off by it."""

    text: str
    flags: int
    toggles: bool = False


KEEPING = (
    Change("fewer rights", ACCESS),
    Change("other memory", TRANSLATION),
    Change("other memory and fewer rights", TRANSLATION | ACCESS),
    Change("the protection domain, by itself again", PD),
)
TOGGLING = (
    Change("on-demand paging toggled", ACCESS, True),
    Change("on-demand paging toggled, and other memory", TRANSLATION | ACCESS, True),
)


def rereg(case: Case) -> List[int]:
    """Changes that leave on-demand paging as it is."""
    return _rounds(case, KEEPING)


def rereg_toggle(case: Case) -> List[int]:
    """Changes by which a region gets on-demand paging or loses it."""
    return _rounds(case, TOGGLING)


def _rounds(case: Case, changes: Tuple[Change, ...]) -> List[int]:
    times: List[int] = []
    problems: List[str] = []
    for turn in range(1, case.workload.rounds + 1):
        for change in changes:
            for odp in (True, False):
                began = time.monotonic_ns()
                try:
                    with ExitStack() as stack:
                        _apply(case, change, odp, turn, stack)
                except WorkFailed as error:
                    had = "with" if odp else "without"
                    problems.append(f"{change.text}, {had} on-demand paging before: {error}")
                times.append(time.monotonic_ns() - began)
    if problems:
        raise WorkFailed("; ".join(problems))
    return times


def _apply(case: Case, change: Change, odp: bool, turn: int, stack: ExitStack) -> None:
    pair = Pair(case, stack)
    other = Memory(case.workload.remote, 3)
    stack.callback(other.close)
    other.fill(0)
    pair.register_anew(REMOTE, odp)
    pair.write(turn, lost=odp)
    mine = pair.memories[REMOTE]
    target = other if change.flags & TRANSLATION else mine
    access = ACCESS_ALL & ~TAKEN if change.flags & ACCESS else ACCESS_ALL
    now = odp != change.toggles
    if now:
        access |= ACCESS_ON_DEMAND
    try:
        pair.registrations[REMOTE] = call(pair, change.flags, target, access)
    except OSError:
        # What is left of the registration is undefined, but it must be possible to give it back.
        pair.register_anew(REMOTE, odp)
        pair.write(turn, lost=odp)
        return
    pair.memories[REMOTE] = target
    pair.write(turn, lost=now)
    wrong, first = mine.difference()
    if wrong:
        raise WorkFailed(f"data: the memory that it was before: {wrong} bytes are wrong: {first}")
    if change.flags & ACCESS:
        _check_taken(pair)


def _check_taken(pair: Pair) -> None:
    """Who may read no more is refused. It is the end of the queues."""
    pair.connection.requester.post_send(pair.work("RDMA_READ"))
    ended = pair.connection.end()
    if ended != REFUSED:
        raise WorkFailed(f"a read, by a right that was taken away, ended with {ended or 'success'}")


def call(pair: Pair, flags: int, memory: Memory, access: int) -> registrations.Registration:
    """IB_USER_VERBS_CMD_REREG_MR of the remote registration; OSError if it is refused."""
    old = pair.registrations[REMOTE]
    answer = ctypes.create_string_buffer(_RESPONSE.size)
    iova = registrations.iova_of(memory.region.iova, memory.start)
    command = _REREG_MR.pack(
        CMD_REREG_MR,
        _REREG_MR.size // 4,
        _RESPONSE.size // 4,
        ctypes.addressof(answer),
        old.handle,
        flags,
        memory.start,
        memory.region.length,
        iova,
        pair.connection.pd.handle,
        access,
    )
    os.write(pair.connection.context.cmd_fd, command)
    lkey, rkey = _RESPONSE.unpack(answer.raw)
    return registrations.Registration(old.handle, lkey, rkey, iova if flags & TRANSLATION else old.address)
