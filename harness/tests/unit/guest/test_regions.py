"""Regions that are shared by queues, large, or out of bounds: where they are touched, and what is allowed."""

from types import SimpleNamespace

import pytest

from harness.guest.errors import WorkFailed
from harness.guest.mm.libc import PAGE_BYTES
from harness.guest.rdma.registration import (
    ACCESS_ALL,
    ACCESS_LOCAL_WRITE,
    ACCESS_REMOTE_ATOMIC,
    ACCESS_REMOTE_READ,
    ACCESS_REMOTE_WRITE,
    Registration,
)
from harness.guest.scenarios import access_rights, multi_qp, sparse
from harness.guest.scenarios.pair import (
    LOCAL,
    REMOTE,
)
from harness.values.case import Case, Region, Workload


@pytest.mark.parametrize("length", [1, PAGE_BYTES, 53 * PAGE_BYTES, 53 * PAGE_BYTES + 7])
def test_queues_side_by_side_write_every_byte_once(length):
    """Mutation: begin every queue at the first page."""
    pieces = sorted(piece for mine in multi_qp.side_by_side(length) for piece in mine)
    assert len(multi_qp.side_by_side(length)) == multi_qp.QUEUES
    ends = [at + size for at, size in pieces]
    assert [at for at, _ in pieces] == [0, *ends[:-1]] and ends[-1] == length


def test_a_large_region_is_touched_at_both_ends_and_across_each_seam():
    """Mutation: let a spot begin at the seam; leave the last one out."""
    length = 3 * sparse.SEAM_BYTES + 10 * PAGE_BYTES
    seam = sparse.SEAM_BYTES // PAGE_BYTES
    last = length // PAGE_BYTES - sparse.SPOT_PAGES
    assert sparse.spots(length) == [0, seam - 2, 2 * seam - 2, 3 * seam - 2, last]


def test_sets_of_rights_are_such_as_the_kernel_takes():
    """Mutation: remote writing without local writing."""
    for access in access_rights.SETS.values():
        assert access & ACCESS_LOCAL_WRITE or not access & (ACCESS_REMOTE_WRITE | ACCESS_REMOTE_ATOMIC)
    for trial in access_rights.FAR:
        allowing = [trial.allowed(Region(1), access) for access in access_rights.SETS.values()]
        assert any(allowing) and not all(allowing)
    for trial in (*access_rights.NEAR, *access_rights.RECEIVING):
        allowing = [trial.allowed(Region(1), access_rights.SETS[name]) for name in access_rights.NEAR_SETS]
        assert any(allowing) and all(allowing) != bool(trial.refused)


def test_no_right_lets_a_device_write_to_memory_that_may_only_be_read():
    """Mutations: look at the region's rights only; expect a read where there are rights to write, too."""
    closed = Region(1, prot="read")
    for trial in (*access_rights.FAR, *access_rights.NEAR, *access_rights.RECEIVING):
        for access in (0, ACCESS_REMOTE_READ, ACCESS_ALL):
            reads = None if access == ACCESS_ALL else access & trial.right == trial.right
            assert trial.allowed(closed, access) is (False if trial.writes else reads)


@pytest.mark.parametrize("end", [LOCAL, REMOTE])
def test_only_the_memory_that_is_tried_is_closed(end):
    """Mutation: close the local memory whichever end is tried."""
    work = Workload("rights_local", 1, Region(1), Region(1, prot="read"))
    tried = access_rights._at(Case("x", "d", work), end).workload
    assert [(tried.local, tried.remote)[at].prot for at in (end, 1 - end)] == ["read", "write"]


@pytest.mark.parametrize(
    ("operation", "ended", "said"),
    [
        ("read", [], ()),
        ("fetch_add", ["IBV_WC_REM_ACCESS_ERR"], ("IBV_WC_REM_ACCESS_ERR",)),
        ("send", ["IBV_WC_REM_OP_ERR", "IBV_WC_LOC_PROT_ERR"], ("IBV_WC_LOC_PROT_ERR", "IBV_WC_REM_OP_ERR")),
    ],
)
def test_both_ends_of_a_send_say_how_it_ended(monkeypatch, operation, ended, said):
    """Mutations: wait for one completion of a refused send; for two of another transfer."""
    left = list(ended)

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
        access_rights._ended(pair, access_rights.AccessCheck(operation, REMOTE, 0, ())) == said and not left
    )


def test_queues_that_read_bring_what_is_there(monkeypatch):
    """Mutation: let a read move the local bytes to the remote end."""
    posted = []
    monkeypatch.setattr(multi_qp.workloads, "one_sided_work", lambda *work: work)
    queue = SimpleNamespace(
        requester=SimpleNamespace(post_send=lambda work: posted.append(work[2:])), wait=lambda count: None
    )
    memories = [SimpleNamespace(first=0, region=Region(8), expected=bytearray([end] * 8)) for end in (1, 2)]
    key = Registration(0, 0, 0, 0)
    pair = SimpleNamespace(registrations=[key, key], memories=memories)
    multi_qp._all_at_once(pair, [[(0, 4), (4, 4)]], [queue], "RDMA_READ")
    assert posted == [(4, "RDMA_READ"), (4, "RDMA_READ")]
    assert memories[0].expected == memories[1].expected == bytearray([2] * 8)
