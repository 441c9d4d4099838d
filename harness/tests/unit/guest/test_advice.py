"""Advice that was followed at once has brought its pages; a right that was taken away is refused."""

from types import SimpleNamespace

import pytest

from harness.guest import advice, rereg
from harness.guest.libc import PAGE_BYTES
from harness.guest.problems import WorkFailed
from harness.values.case import Region

START = 0x7000_0000


def pair(mapping="anonymous", iova=START):
    memory = SimpleNamespace(
        region=Region(8 * PAGE_BYTES, mapping=mapping), start=START, pages_start=START, pages=8
    )
    return SimpleNamespace(memories=[None, memory], registrations=[None, SimpleNamespace(address=iova)])


@pytest.mark.parametrize(
    ("kind", "come", "said"),
    [
        ("PREFETCH", 3, []),
        ("PREFETCH_WRITE", 8, []),
        ("PREFETCH", 2, ["2 pages came, 3 were advised"]),
        (advice.NO_FAULT, 0, []),
        (advice.NO_FAULT, 1, ["1 pages came"]),
    ],
)
def test_what_is_advised_must_be_there(monkeypatch, kind, come, said):
    """Two pieces that overlap, of three pages in all. Mutations: count the pieces' pages twice; take a kernel that does
    nothing for one that does; look in the registered address, which may be another.
    """
    monkeypatch.setattr(advice.pages, "present", lambda start, pages: come)
    for iova in (START, 0):
        pieces = ((1, iova + 100, PAGE_BYTES), (1, iova + PAGE_BYTES + 200, PAGE_BYTES))
        assert advice._not_done(pair(iova=iova), kind, pieces) == said
    assert advice._not_done(pair("file"), kind, ((1, START, 9),)) == []


@pytest.mark.parametrize("ended", ["", "IBV_WC_REM_OP_ERR", rereg.REFUSED])
def test_a_right_that_was_taken_is_refused(ended):
    """Mutation: only write, which is still allowed."""
    posted = []
    connection = SimpleNamespace(requester=SimpleNamespace(post_send=posted.append), end=lambda: ended)
    changed = SimpleNamespace(connection=connection, work=lambda opcode: opcode)
    if ended == rereg.REFUSED:
        rereg._check_taken(changed)
    else:
        with pytest.raises(WorkFailed, match=f"ended with {ended or 'success'}"):
            rereg._check_taken(changed)
    assert posted == ["RDMA_READ"]
