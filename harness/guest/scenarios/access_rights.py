"""Every set of access rights at either end: what is allowed is done, what is not ends with an error, touches no page.

Memory that may only be read is written by no device, whatever its region allows: the fault for it fails.
"""

from __future__ import annotations

import time
from contextlib import ExitStack
from dataclasses import replace
from typing import Dict, List, NamedTuple, Optional, Tuple

from harness.guest.errors import WorkFailed
from harness.guest.mm import pagemap
from harness.guest.mm.page_model import PageModel
from harness.guest.rdma import registration as registrations
from harness.guest.rdma.registration import (
    ACCESS_ALL,
    ACCESS_LOCAL_WRITE,
    ACCESS_ON_DEMAND,
    ACCESS_REMOTE_ATOMIC,
    ACCESS_REMOTE_READ,
    ACCESS_REMOTE_WRITE,
    ACCESS_WRITING,
)
from harness.guest.rdma.workloads import (
    PATTERNS,
    Side,
)
from harness.guest.scenarios.pair import (
    LOCAL,
    REMOTE,
    Pair,
    compare,
)
from harness.values.case import Case, Region

REFUSED = "IBV_WC_REM_ACCESS_ERR"
# Of one's own memory, and what the peer hears when it is a receive's. Ref: InfiniBand architecture 1.4, 9.9.2.4
LOCAL_REFUSED = "IBV_WC_LOC_PROT_ERR"
PEER_REFUSED = "IBV_WC_REM_OP_ERR"
_MAX_PROBLEMS = 4


class AccessCheck(NamedTuple):
    """A transfer, the end whose region has one set of rights after the other, the right that it needs there, and how
    its work requests end without.
    """

    operation: str
    end: int
    right: int
    refused: Tuple[str, ...]

    @property
    def writes(self) -> bool:
        """Whether it writes to the region."""
        return bool(self.right & ACCESS_WRITING)

    def allowed(self, region: Region, access: int) -> Optional[bool]:
        """Whether a region with these rights allows it; None where drivers differ.

        mlx5_ib asks for pages to write even to read them, as long as the region has rights to write: it gets none of
        memory that may only be read.
        """
        if region.prot == "read" and (self.writes or access & ACCESS_WRITING):
            return False if self.writes else None
        return access & self.right == self.right


FAR = (
    AccessCheck("write", REMOTE, ACCESS_REMOTE_WRITE, (REFUSED,)),
    AccessCheck("read", REMOTE, ACCESS_REMOTE_READ, (REFUSED,)),
    AccessCheck("fetch_add", REMOTE, ACCESS_REMOTE_ATOMIC, (REFUSED,)),
)
NEAR = (
    AccessCheck("write", LOCAL, 0, ()),
    AccessCheck("send", LOCAL, 0, ()),
    AccessCheck("read", LOCAL, ACCESS_LOCAL_WRITE, (LOCAL_REFUSED,)),
    AccessCheck("fetch_add", LOCAL, ACCESS_LOCAL_WRITE, (LOCAL_REFUSED,)),
)
RECEIVING = (AccessCheck("send", REMOTE, ACCESS_LOCAL_WRITE, (LOCAL_REFUSED, PEER_REFUSED)),)
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
# Rights of those afar change nothing at the near end.
NEAR_SETS = ("none", "remote read", "local write", "all")


def rights(case: Case) -> List[int]:
    """Each round all sets with all one-sided operations, at the end that they are done to."""
    return _rounds(case, FAR, tuple(SETS))


def rights_local(case: Case) -> List[int]:
    """Each round some sets with what is done to memory by its owner's own send queue."""
    return _rounds(case, NEAR, NEAR_SETS)


def rights_receive(case: Case) -> List[int]:
    """Each round some sets with a receive."""
    return _rounds(case, RECEIVING, NEAR_SETS)


def _rounds(case: Case, trials: Tuple[AccessCheck, ...], sets: Tuple[str, ...]) -> List[int]:
    """Each trial has queues of its own, since a refusal is their end."""
    times: List[int] = []
    problems: List[str] = []
    for turn in range(1, case.workload.rounds + 1):
        began = time.monotonic_ns()
        for name in sets:
            for trial in trials:
                try:
                    _try(case, SETS[name], trial, turn)
                except WorkFailed as error:
                    where = ("local", "remote")[trial.end]
                    problems.append(f"{trial.operation}, {where} rights: {name}: {error}")
        times.append(time.monotonic_ns() - began)
    if problems:
        more = f" (and {len(problems) - _MAX_PROBLEMS} more)" if len(problems) > _MAX_PROBLEMS else ""
        raise WorkFailed("; ".join(problems[:_MAX_PROBLEMS]) + more)
    return times


def _try(case: Case, access: int, trial: AccessCheck, turn: int) -> None:
    with ExitStack() as stack:
        pair = Pair(_at(case, trial.end), stack)
        memory = pair.memories[trial.end]
        allowed = trial.allowed(memory.region, access)
        if allowed is None:
            return
        _register(pair, trial.end, access)
        for each in pair.memories:
            each.fill(turn)
        pair.lose(trial.end)
        ended = _ended(pair, trial)
        come = pagemap.present(memory.pages_start, memory.pages)
        expected = ((), memory.pages) if allowed else (tuple(sorted(trial.refused)), 0)
        if (ended, come) != expected:
            raise WorkFailed(
                f"expected {_words(expected[0])} and {expected[1]} pages in memory,"
                f" it was {_words(ended)} and {come}"
            )
        if allowed:
            PATTERNS[trial.operation].moves(*pair.memories)
        # What an answer that cannot be written does to the other end is done when it comes: an atomic has changed that.
        compare(pair.memories[:1] if trial.end == LOCAL and not allowed else pair.memories)


def _at(case: Case, end: int) -> Case:
    """The case with the remote region's `prot` at the end that is tried, and memory to write at the other."""
    work = case.workload
    prots = ["write", "write"]
    prots[end] = work.remote.prot
    local, remote = (replace(region, prot=prot) for region, prot in zip((work.local, work.remote), prots))
    return replace(case, workload=replace(work, local=local, remote=remote))


def _words(ended: Tuple[str, ...]) -> str:
    return " and ".join(ended) or "success"


def _ended(pair: Pair, trial: AccessCheck) -> Tuple[str, ...]:
    """Do it, and say with which errors its work requests ended, sorted: none where all went well."""
    local, remote = (
        Side(memory, PageModel(memory.region), registration)
        for memory, registration in zip(pair.memories, pair.registrations)
    )
    try:
        for post in PATTERNS[trial.operation].prepare(pair.connection, local, remote):
            post()
    except WorkFailed as error:
        if not error.status:
            raise
        more = [pair.connection.end()] if trial.operation == "send" else []
        return tuple(sorted([error.status, *more]))
    return ()


def _register(pair: Pair, end: int, access: int) -> None:
    """Register one end anew, with just these rights."""
    connection, memory = pair.connection, pair.memories[end]
    start, length = memory.start, memory.region.length
    made = registrations.register(
        connection.context.cmd_fd, connection.pd.handle, start, length, start, access | ACCESS_ON_DEMAND
    )
    pair.deregister(pair.registrations[end])
    pair.registrations[end] = made
