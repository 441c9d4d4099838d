"""Regions whose registration is changed in place: it works, or it is refused, and the data is right after either.

Ref: rdma-core 56 libibverbs/man/ibv_rereg_mr.3; Linux 7.3 drivers/infiniband/core/uverbs_cmd.c, ib_uverbs_rereg_mr
"""

from __future__ import annotations

import ctypes
import errno
import os
import struct
import time
from contextlib import ExitStack
from typing import Any, Dict, List, NamedTuple, Optional, Tuple

from harness.guest.errors import WorkFailed
from harness.guest.mm import pagemap
from harness.guest.mm.memory import Memory
from harness.guest.rdma import registration as registrations
from harness.guest.rdma.registration import (
    ACCESS_ALL,
    ACCESS_ON_DEMAND,
    ACCESS_REMOTE_ATOMIC,
    ACCESS_REMOTE_READ,
)
from harness.guest.scenarios.access_rights import REFUSED
from harness.guest.scenarios.pair import (
    LOCAL,
    REMOTE,
    Pair,
    compare,
)
from harness.values.case import Case

# Ref: Linux 7.3 include/uapi/rdma/ib_user_verbs.h: IB_USER_VERBS_CMD_REREG_MR, struct ib_uverbs_rereg_mr and its
# response; include/rdma/ib_verbs.h, enum ib_mr_rereg_flags
CMD_REREG_MR = 11
_REREG_MR = struct.Struct("=IHHQIIQQQII")
_RESPONSE = struct.Struct("=II")
TRANSLATION, PD, ACCESS = 1, 2, 4
TAKEN = ACCESS_REMOTE_READ | ACCESS_REMOTE_ATOMIC
# What a driver, by the beginning of its device's name, may leave undone, with EOPNOTSUPP; all else has to work.
# Ref: Linux 7.3 drivers/infiniband/sw/rxe/rxe_verbs.c, rxe_rereg_user_mr; hw/mlx5/mr.c, mlx5_ib_rereg_user_mr
UNSUPPORTED: Dict[str, int] = {"soft-roce": TRANSLATION, "mlx": 0}


class Change(NamedTuple):
    """One call: what is changed, as flags.

    `toggles` says whether on-demand paging goes on or off by it, `moves` whether another protection domain is named.
    """

    text: str
    flags: int
    toggles: bool = False
    moves: bool = False


KEEPING = (
    Change("fewer rights", ACCESS),
    Change("other memory", TRANSLATION),
    Change("other memory and fewer rights", TRANSLATION | ACCESS),
    Change("the protection domain, by itself again", PD),
    Change("another protection domain", PD, moves=True),
    Change("another protection domain and fewer rights", PD | ACCESS, moves=True),
    Change("another protection domain and other memory", PD | TRANSLATION, moves=True),
    Change("another protection domain, other memory and fewer rights", PD | TRANSLATION | ACCESS, moves=True),
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
    there = _elsewhere(case, stack) if change.moves else None
    pair = Pair(case, stack, there.context if there else None)
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
        pd = (there or pair.connection).pd.handle
        pair.registrations[REMOTE] = call(pair, change.flags, target, access, pd)
    except OSError as error:
        check_refusal(change, pair.connection.context.name, error)
        # What is left of the registration is undefined, but it must be possible to give it back.
        pair.register_anew(REMOTE, odp)
        pair.write(turn, lost=odp)
        return
    pair.memories[REMOTE] = target
    if there is not None:
        _move(pair, there, lost=now)
    pair.write(turn, lost=now)
    wrong, first = mine.difference()
    if wrong:
        raise WorkFailed(f"data: the memory that it was before: {wrong} bytes are wrong: {first}")
    if change.flags & ACCESS:
        _check_taken(pair)


def check_refusal(change: Change, device: str, error: OSError) -> None:
    """WorkFailed if the device's driver has to do that. Whether one can toggle on-demand paging is its own affair."""
    unsupported = UNSUPPORTED.get(device.rstrip("0123456789_-"), 0)
    if change.toggles or (change.flags & unsupported and error.errno == errno.EOPNOTSUPP):
        return
    raise WorkFailed(f"refused: {error}") from error


def _elsewhere(case: Case, stack: ExitStack) -> Any:
    """Queue pairs in a protection domain of their own, and the context that a pair is to be in, too."""
    from harness.guest.rdma.connection import Connection

    there = Connection(case.device, case.workload.mtu_bytes, case.timeout_s)
    stack.callback(there.close)
    return there


def _move(pair: Pair, there: Any, lost: bool) -> None:
    """The remote region is of another protection domain now: who was allowed before is refused, and brings no page.

    Then the old domain is given back, which works only if the region is not counted as its own any more, and the
    pair goes on in the new one.
    """
    remote = pair.memories[REMOTE]
    if lost:
        pair.lose(REMOTE)
    pair.connection.requester.post_send(pair.work())
    ended = pair.connection.end()
    come = pagemap.present(remote.pages_start, remote.pages) if lost else 0
    if (ended, come) != (REFUSED, 0):
        said = f"ended with {ended or 'success'} and {come} pages in memory"
        raise WorkFailed(f"a write by a queue pair of the old protection domain {said}")
    compare(pair.memories)
    old, pair.connection = pair.connection, there
    pair.register_anew(LOCAL, pair.memories[LOCAL].region.odp)
    old.close()


def _check_taken(pair: Pair) -> None:
    """Who may read no more is refused. It is the end of the queues."""
    pair.connection.requester.post_send(pair.work("RDMA_READ"))
    ended = pair.connection.end()
    if ended != REFUSED:
        raise WorkFailed(f"a read, by a right that was taken away, ended with {ended or 'success'}")


def call(
    pair: Pair, flags: int, memory: Memory, access: int, pd: Optional[int] = None
) -> registrations.Registration:
    """IB_USER_VERBS_CMD_REREG_MR of the remote registration, to the pair's protection domain or another; OSError if
    it is refused.
    """
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
        pair.connection.pd.handle if pd is None else pd,
        access,
    )
    os.write(pair.connection.context.cmd_fd, command)
    lkey, rkey = _RESPONSE.unpack(answer.raw)
    return registrations.Registration(old.handle, lkey, rkey, iova if flags & TRANSLATION else old.address)
