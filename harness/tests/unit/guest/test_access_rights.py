"""Sets of access flags, and what they allow."""

from types import SimpleNamespace

import pytest

from harness.guest.errors import WorkFailed
from harness.guest.rdma.registration import (
    ACCESS_ALL,
    ACCESS_LOCAL_WRITE,
    ACCESS_REMOTE_ATOMIC,
    ACCESS_REMOTE_READ,
    ACCESS_REMOTE_WRITE,
)
from harness.guest.scenarios import access_rights
from harness.guest.scenarios.pair import LOCAL, REMOTE
from harness.values.case import Case, Region, Workload


def test_sets_are_valid_and_some_allow():
    """Mutation: remote write without local write."""
    for access in access_rights.SETS.values():
        assert access & ACCESS_LOCAL_WRITE or not access & (ACCESS_REMOTE_WRITE | ACCESS_REMOTE_ATOMIC)
    for check in access_rights.ONE_SIDED:
        allowing = [check.allowed(Region(1), access) for access in access_rights.SETS.values()]
        assert any(allowing) and not all(allowing)
    for check in (*access_rights.LOCAL_BUFFER, *access_rights.RECEIVE_BUFFER):
        allowing = [check.allowed(Region(1), access_rights.SETS[name]) for name in access_rights.LOCAL_SETS]
        assert any(allowing) and all(allowing) != bool(check.refused)


def test_no_flag_allows_writes_to_read_only_memory():
    """Mutations: look at the access flags only; expect a read where there are write flags, too."""
    read_only = Region(1, prot="read")
    for check in (*access_rights.ONE_SIDED, *access_rights.LOCAL_BUFFER, *access_rights.RECEIVE_BUFFER):
        for access in (0, ACCESS_REMOTE_READ, ACCESS_ALL):
            reads = None if access == ACCESS_ALL else access & check.right == check.right
            assert check.allowed(read_only, access) is (False if check.writes else reads)


@pytest.mark.parametrize("end", [LOCAL, REMOTE])
def test_only_the_checked_memory_is_read_only(end):
    """Mutation: make the local memory read-only whichever end is checked."""
    work = Workload("access_rights_local", 1, Region(1), Region(1, prot="read"))
    checked = access_rights._at(Case("x", "d", work), end).workload
    assert [(checked.local, checked.remote)[at].prot for at in (end, 1 - end)] == ["read", "write"]


@pytest.mark.parametrize(
    ("operation", "completions", "statuses"),
    [
        ("read", [], ()),
        ("fetch_add", ["IBV_WC_REM_ACCESS_ERR"], ("IBV_WC_REM_ACCESS_ERR",)),
        ("send", ["IBV_WC_REM_OP_ERR", "IBV_WC_LOC_PROT_ERR"], ("IBV_WC_LOC_PROT_ERR", "IBV_WC_REM_OP_ERR")),
    ],
)
def test_both_ends_of_a_send_report_a_status(monkeypatch, operation, completions, statuses):
    """Mutations: wait for one completion of a refused send; for two of another transfer."""
    left = list(completions)

    def post():
        if left:
            raise WorkFailed("work completed", left.pop(0))

    posts = access_rights.PATTERNS[operation]._replace(prepare=lambda *sides: [post])
    monkeypatch.setitem(access_rights.PATTERNS, operation, posts)
    memories = [SimpleNamespace(region=Region(8)), SimpleNamespace(region=Region(8))]
    pair = SimpleNamespace(
        memories=memories, registrations=[None, None], connection=SimpleNamespace(end=lambda: left.pop(0))
    )
    assert (
        access_rights._statuses(pair, access_rights.AccessCheck(operation, REMOTE, 0, ())) == statuses
        and not left
    )
