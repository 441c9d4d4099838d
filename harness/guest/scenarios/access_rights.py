"""Every set of access flags at either end: allowed operations succeed, others fail and fault in no page.

A device never writes to read-only memory, whatever the region's flags: its fault fails.
"""

from __future__ import annotations

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
from harness.guest.scenarios.pair import LOCAL, REMOTE, Pair, compare
from harness.guest.scenarios.registry import scenario, timed_rounds
from harness.values.case import Case, Region

REFUSED = "IBV_WC_REM_ACCESS_ERR"
# Of local memory; and what the sender gets when the memory is a receive's. Ref: InfiniBand architecture 1.4, 9.9.2.4
LOCAL_REFUSED = "IBV_WC_LOC_PROT_ERR"
PEER_REFUSED = "IBV_WC_REM_OP_ERR"
_MAX_PROBLEMS = 4


class AccessCheck(NamedTuple):
    """One operation: the end whose access flags vary, the flag it needs there, and its error statuses without."""

    operation: str
    end: int
    right: int
    refused: Tuple[str, ...]

    @property
    def writes(self) -> bool:
        """True if it writes to the region."""
        return bool(self.right & ACCESS_WRITING)

    def allowed(self, region: Region, access: int) -> Optional[bool]:
        """Tell whether a region with these access flags allows it; None where drivers differ.

        mlx5_ib faults for write even to read, as long as the region has a write flag: that fails on read-only memory.
        """
        if region.prot == "read" and (self.writes or access & ACCESS_WRITING):
            return False if self.writes else None
        return access & self.right == self.right


ONE_SIDED = (
    AccessCheck("write", REMOTE, ACCESS_REMOTE_WRITE, (REFUSED,)),
    AccessCheck("read", REMOTE, ACCESS_REMOTE_READ, (REFUSED,)),
    AccessCheck("fetch_add", REMOTE, ACCESS_REMOTE_ATOMIC, (REFUSED,)),
)
LOCAL_BUFFER = (
    AccessCheck("write", LOCAL, 0, ()),
    AccessCheck("send", LOCAL, 0, ()),
    AccessCheck("read", LOCAL, ACCESS_LOCAL_WRITE, (LOCAL_REFUSED,)),
    AccessCheck("fetch_add", LOCAL, ACCESS_LOCAL_WRITE, (LOCAL_REFUSED,)),
)
RECEIVE_BUFFER = (AccessCheck("send", REMOTE, ACCESS_LOCAL_WRITE, (LOCAL_REFUSED, PEER_REFUSED)),)
# Remote write needs local write. Ref: Linux 7.3 include/rdma/ib_verbs.h, ib_check_mr_access
SETS: Dict[str, int] = {
    "none": 0,
    "local write": ACCESS_LOCAL_WRITE,
    "remote read": ACCESS_REMOTE_READ,
    "local and remote write": ACCESS_LOCAL_WRITE | ACCESS_REMOTE_WRITE,
    "local write, remote read": ACCESS_LOCAL_WRITE | ACCESS_REMOTE_READ,
    "local write, remote atomic": ACCESS_LOCAL_WRITE | ACCESS_REMOTE_ATOMIC,
    "all": ACCESS_ALL,
}
# Remote access flags make no difference to local access.
LOCAL_SETS = ("none", "remote read", "local write", "all")


@scenario("access_rights")
def access_rights(case: Case) -> List[int]:
    """Try all sets of access flags of the remote region with all one-sided operations."""
    return _rounds(case, ONE_SIDED, tuple(SETS))


@scenario("access_rights_local")
def access_rights_local(case: Case) -> List[int]:
    """Try some sets of access flags of the requester's own region."""
    return _rounds(case, LOCAL_BUFFER, LOCAL_SETS)


@scenario("access_rights_receive")
def access_rights_receive(case: Case) -> List[int]:
    """Try some sets of access flags of a receive's region."""
    return _rounds(case, RECEIVE_BUFFER, LOCAL_SETS)


def _rounds(case: Case, checks: Tuple[AccessCheck, ...], sets: Tuple[str, ...]) -> List[int]:
    """Run each check with queue pairs of its own, since an error ends them."""
    problems: List[str] = []

    def one_round(number: int) -> None:
        for name in sets:
            for check in checks:
                try:
                    _try(case, SETS[name], check, number)
                except WorkFailed as error:
                    where = ("local", "remote")[check.end]
                    problems.append(f"{check.operation}, {where} rights: {name}: {error}")

    times = timed_rounds(case, one_round)
    if problems:
        more = f" (and {len(problems) - _MAX_PROBLEMS} more)" if len(problems) > _MAX_PROBLEMS else ""
        raise WorkFailed("; ".join(problems[:_MAX_PROBLEMS]) + more)
    return times


def _try(case: Case, access: int, check: AccessCheck, number: int) -> None:
    with ExitStack() as stack:
        pair = Pair(_at(case, check.end), stack)
        memory = pair.memories[check.end]
        allowed = check.allowed(memory.region, access)
        if allowed is None:
            return
        _register(pair, check.end, access)
        for each in pair.memories:
            each.fill(number)
        pair.invalidate(check.end)
        statuses = _statuses(pair, check)
        present = pagemap.present(memory.pages_start, memory.pages)
        expected = ((), memory.pages) if allowed else (tuple(sorted(check.refused)), 0)
        if (statuses, present) != expected:
            raise WorkFailed(
                f"expected {_text(expected[0])} and {expected[1]} pages in memory,"
                f" it was {_text(statuses)} and {present}"
            )
        if allowed:
            PATTERNS[check.operation].moves(*pair.memories)
        # The local error comes after the remote memory has changed: an atomic whose old value cannot be stored.
        compare(pair.memories[:1] if check.end == LOCAL and not allowed else pair.memories)


def _at(case: Case, end: int) -> Case:
    """Return the case with the remote region's `prot` at the checked end, and writable memory at the other."""
    work = case.workload
    prots = ["write", "write"]
    prots[end] = work.remote.prot
    local, remote = (replace(region, prot=prot) for region, prot in zip((work.local, work.remote), prots))
    return replace(case, workload=replace(work, local=local, remote=remote))


def _text(statuses: Tuple[str, ...]) -> str:
    return " and ".join(statuses) or "success"


def _statuses(pair: Pair, check: AccessCheck) -> Tuple[str, ...]:
    """Run the operation; return the sorted error statuses of its work requests, () on success."""
    local, remote = (
        Side(memory, PageModel(memory.region), registration)
        for memory, registration in zip(pair.memories, pair.registrations)
    )
    try:
        for post in PATTERNS[check.operation].prepare(pair.connection, local, remote):
            post()
    except WorkFailed as error:
        if not error.status:
            raise
        receiver = [pair.connection.end()] if check.operation == "send" else []
        return tuple(sorted([error.status, *receiver]))
    return ()


def _register(pair: Pair, end: int, access: int) -> None:
    """Register one end again, with just these access flags."""
    connection, memory = pair.connection, pair.memories[end]
    start, length = memory.start, memory.region.length
    new = registrations.register(
        connection.context.cmd_fd, connection.pd.handle, start, length, start, access | ACCESS_ON_DEMAND
    )
    pair.deregister(pair.registrations[end])
    pair.registrations[end] = new
