"""ibv_rereg_mr(): it succeeds or fails cleanly, and transfers are right after either.

Ref: rdma-core 56 libibverbs/man/ibv_rereg_mr.3; Linux 7.3 drivers/infiniband/core/uverbs_cmd.c, ib_uverbs_rereg_mr
"""

from __future__ import annotations

import ctypes
import errno
import itertools
import os
import struct
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
from harness.guest.scenarios.pair import LOCAL, REMOTE, Pair, compare
from harness.guest.scenarios.registry import scenario, timed_rounds
from harness.values.case import Case

# Ref: Linux 7.3 include/uapi/rdma/ib_user_verbs.h: IB_USER_VERBS_CMD_REREG_MR, struct ib_uverbs_rereg_mr and its
# response; include/rdma/ib_verbs.h, enum ib_mr_rereg_flags
CMD_REREG_MR = 11
_REREG_MR = struct.Struct("=IHHQIIQQQII")
_RESPONSE = struct.Struct("=II")
TRANSLATION, PD, ACCESS = 1, 2, 4
REMOVED = ACCESS_REMOTE_READ | ACCESS_REMOTE_ATOMIC
# Flags that a driver, by the beginning of its device's name, may refuse with EOPNOTSUPP; all others have to work.
# Ref: Linux 7.3 drivers/infiniband/sw/rxe/rxe_verbs.c, rxe_rereg_user_mr; hw/mlx5/mr.c, mlx5_ib_rereg_user_mr
UNSUPPORTED: Dict[str, int] = {"soft-roce": TRANSLATION, "mlx": 0}


class Change(NamedTuple):
    """One call: the IB_MR_REREG flags.

    `toggles`: it switches on-demand paging on or off. `moves`: it names another protection domain.
    """

    text: str
    flags: int
    toggles: bool = False
    moves: bool = False


SAME_PAGING = (
    Change("fewer rights", ACCESS),
    Change("other memory", TRANSLATION),
    Change("other memory and fewer rights", TRANSLATION | ACCESS),
    Change("the same protection domain", PD),
    Change("another protection domain", PD, moves=True),
    Change("another protection domain and fewer rights", PD | ACCESS, moves=True),
    Change("another protection domain and other memory", PD | TRANSLATION, moves=True),
    Change("another protection domain, other memory and fewer rights", PD | TRANSLATION | ACCESS, moves=True),
)
TOGGLED_PAGING = (
    Change("on-demand paging toggled", ACCESS, True),
    Change("on-demand paging toggled, and other memory", TRANSLATION | ACCESS, True),
)


@scenario("rereg")
def rereg(case: Case) -> List[int]:
    """Change rights, memory and protection domain; on-demand paging stays as it is."""
    return _rounds(case, SAME_PAGING)


@scenario("rereg_toggle")
def rereg_toggle(case: Case) -> List[int]:
    """Switch on-demand paging of a region on and off."""
    return _rounds(case, TOGGLED_PAGING)


def _rounds(case: Case, changes: Tuple[Change, ...]) -> List[int]:
    """Make each change with and without on-demand paging; return the times of all of them, by change."""
    times: List[int] = []
    problems: List[str] = []
    for change, odp in itertools.product(changes, (True, False)):

        def one_round(number: int, change: Change = change, odp: bool = odp) -> None:
            try:
                with ExitStack() as stack:
                    _apply(case, change, odp, number, stack)
            except WorkFailed as error:
                before = "with" if odp else "without"
                problems.append(f"{change.text}, {before} on-demand paging before: {error}")

        times += timed_rounds(case, one_round)
    if problems:
        raise WorkFailed("; ".join(problems))
    return times


def _apply(case: Case, change: Change, odp: bool, number: int, stack: ExitStack) -> None:
    domain = _other_domain(case, stack) if change.moves else None
    pair = Pair(case, stack, domain.context if domain else None)
    other = Memory(case.workload.remote, 3)
    stack.callback(other.close)
    other.fill(0)
    pair.register_again(REMOTE, odp)
    pair.write(number, absent=odp)
    old = pair.memories[REMOTE]
    target = other if change.flags & TRANSLATION else old
    access = ACCESS_ALL & ~REMOVED if change.flags & ACCESS else ACCESS_ALL
    now = odp != change.toggles
    if now:
        access |= ACCESS_ON_DEMAND
    try:
        pd = (domain or pair.connection).pd.handle
        pair.registrations[REMOTE] = call(pair, change.flags, target, access, pd)
    except OSError as error:
        check_refusal(change, pair.connection.context.name, error)
        # The registration is undefined after a failure, but it must be possible to deregister it.
        pair.register_again(REMOTE, odp)
        pair.write(number, absent=odp)
        return
    pair.memories[REMOTE] = target
    if domain is not None:
        _move(pair, domain, absent=now)
    pair.write(number, absent=now)
    wrong, first = old.difference()
    if wrong:
        raise WorkFailed(f"data: the memory it was before: {wrong} bytes are wrong: {first}")
    if change.flags & ACCESS:
        _check_removed(pair)


def check_refusal(change: Change, device: str, error: OSError) -> None:
    """Raise WorkFailed if the device's driver has to support the change; toggling on-demand paging is optional."""
    unsupported = UNSUPPORTED.get(device.rstrip("0123456789_-"), 0)
    if change.toggles or (change.flags & unsupported and error.errno == errno.EOPNOTSUPP):
        return
    raise WorkFailed(f"refused: {error}") from error


def _other_domain(case: Case, stack: ExitStack) -> Any:
    """Connect queue pairs in another protection domain, and in the context that the pair has to use."""
    from harness.guest.rdma.connection import Connection

    domain = Connection(case.device, case.workload.mtu_bytes, case.timeout_s)
    stack.callback(domain.close)
    return domain


def _move(pair: Pair, domain: Any, absent: bool) -> None:
    """Check that QPs of the old protection domain are refused, without a fault; then free that domain.

    Freeing it works only if it no longer counts the region. The pair continues with `domain`, in the new domain.
    """
    remote = pair.memories[REMOTE]
    if absent:
        pair.invalidate(REMOTE)
    pair.connection.requester.post_send(pair.work())
    status = pair.connection.end()
    present = pagemap.present(remote.pages_start, remote.pages) if absent else 0
    if (status, present) != (REFUSED, 0):
        result = f"ended with {status or 'success'} and {present} pages in memory"
        raise WorkFailed(f"a write by a queue pair of the old protection domain {result}")
    compare(pair.memories)
    old, pair.connection = pair.connection, domain
    pair.register_again(LOCAL, pair.memories[LOCAL].region.odp)
    old.close()


def _check_removed(pair: Pair) -> None:
    """Read without the right to; the error is the end of the queue pairs."""
    pair.connection.requester.post_send(pair.work("RDMA_READ"))
    status = pair.connection.end()
    if status != REFUSED:
        raise WorkFailed(f"a read without the removed right ended with {status or 'success'}")


def call(
    pair: Pair, flags: int, memory: Memory, access: int, pd: Optional[int] = None
) -> registrations.Registration:
    """Issue IB_USER_VERBS_CMD_REREG_MR for the remote registration; OSError if it is refused.

    `pd` is the handle of a protection domain; None is the pair's own.
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
