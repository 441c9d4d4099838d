"""Advice that was followed at once has brought its pages; a right that was taken away is refused."""

import errno
from types import SimpleNamespace

import pytest

from harness.guest.errors import WorkFailed
from harness.guest.mm.libc import PAGE_BYTES
from harness.guest.scenarios import advise, rereg
from harness.values.case import Region

START = 0x7000_0000


def pair(mapping="anonymous", iova=START, prot="write"):
    memory = SimpleNamespace(
        region=Region(8 * PAGE_BYTES, mapping=mapping, prot=prot), start=START, pages_start=START, pages=8
    )
    return SimpleNamespace(memories=[None, memory], registrations=[None, SimpleNamespace(address=iova)])


@pytest.mark.parametrize(
    ("kind", "come", "said"),
    [
        ("PREFETCH", 3, []),
        ("PREFETCH_WRITE", 3, []),
        ("PREFETCH", 2, ["2 pages came, 3 were advised"]),
        ("PREFETCH", 4, ["4 pages came, 3 were advised"]),
        (advise.NO_FAULT, 0, []),
        (advise.NO_FAULT, 1, ["1 pages came"]),
    ],
)
def test_what_is_advised_must_be_there(monkeypatch, kind, come, said):
    """Two pieces that overlap, of three pages in all. Mutations: count the pieces' pages twice; take a kernel that does
    nothing for one that does; look in the registered address, which may be another; let more come than was asked for.
    """
    monkeypatch.setattr(advise.pagemap, "present", lambda start, pages: come)
    for iova in (START, 0):
        pieces = ((1, iova + 100, PAGE_BYTES), (1, iova + PAGE_BYTES + 200, PAGE_BYTES))
        assert advise._not_done(pair(iova=iova), kind, pieces) == said


@pytest.mark.parametrize("mapping", ["file", "shared", "thp", "hugetlb"])
def test_a_kernel_may_map_what_lies_around_pages_that_are_not_anonymous(monkeypatch, mapping):
    """Mutations: want the number that was advised; take fewer."""
    piece = ((1, START, 2 * PAGE_BYTES),)
    for come, said in ((8, []), (1, ["1 pages came, 2 were advised"])):
        monkeypatch.setattr(advise.pagemap, "present", lambda start, pages, come=come: come)
        assert advise._not_done(pair(mapping), "PREFETCH", piece) == said


@pytest.mark.parametrize(
    ("prot", "kind", "status", "said"),
    [
        ("read", advise.WRITE, 0, ["was to be refused and was not"]),
        ("read", advise.WRITE, 1, []),
        ("read", "PREFETCH", 22, ["errno 22"]),
        ("write", advise.WRITE, 1, ["errno 1"]),
        ("write", advise.WRITE, 0, []),
    ],
)
def test_advice_to_write_needs_the_right_to_write(monkeypatch, prot, kind, status, said):
    """Mutations: take it from a region without; refuse it to all; check such a region by a write."""
    monkeypatch.setattr(advise, "KINDS", {kind: 7})
    monkeypatch.setattr(advise, "_call", lambda *asked: status)
    monkeypatch.setattr(advise, "_not_done", lambda *asked: [])
    checked = []
    tried = pair(prot=prot)
    tried.lose = lambda end: None
    tried.read = lambda turn: checked.append("read")
    tried.write = lambda turn, lost: checked.append("write")
    found = advise._try(tried, advise.AccessCheck("all", ((1, START, 1),)), 1)
    assert [text.rpartition(": ")[2] for text in found] == 2 * said
    assert checked == [prot, prot]


@pytest.mark.parametrize(
    ("device", "change", "number", "works"),
    [
        ("soft-roce", rereg.KEEPING[1], errno.EOPNOTSUPP, True),
        ("soft-roce", rereg.KEEPING[1], errno.EINVAL, False),
        ("soft-roce", rereg.KEEPING[0], errno.EOPNOTSUPP, False),
        ("soft-roce", rereg.TOGGLING[0], errno.EINVAL, True),
        ("mlx5_0", rereg.KEEPING[1], errno.EOPNOTSUPP, False),
    ],
)
def test_a_driver_refuses_what_it_is_known_not_to_do_and_nothing_else(device, change, number, works):
    """Mutation: take any errno; any change."""
    if works:
        rereg.check_refusal(change, device, OSError(number, "no"))
    else:
        with pytest.raises(WorkFailed, match="refused: "):
            rereg.check_refusal(change, device, OSError(number, "no"))


@pytest.mark.parametrize(
    ("ended", "come", "said"),
    [(rereg.REFUSED, 0, ""), ("", 8, "success and 8 pages"), (rereg.REFUSED, 1, "1 pages in memory")],
)
def test_the_old_protection_domain_is_refused_and_given_back(monkeypatch, ended, come, said):
    """Mutations: ask by a queue pair of the new one; let pages come; keep the old one."""
    done = []
    monkeypatch.setattr(rereg.pagemap, "present", lambda start, pages: come)
    monkeypatch.setattr(rereg, "compare", lambda memories: done.append("compared"))
    old = SimpleNamespace(
        requester=SimpleNamespace(post_send=done.append),
        end=lambda: ended,
        close=lambda: done.append("closed"),
    )
    moved = pair()
    moved.connection, there = old, SimpleNamespace()
    moved.memories[0] = moved.memories[1]
    moved.work = lambda: "write"
    moved.lose = lambda end: done.append("lost")
    moved.register_anew = lambda end, odp: done.append(moved.connection is there)
    if said:
        with pytest.raises(WorkFailed, match=said):
            rereg._move(moved, there, lost=True)
        return
    rereg._move(moved, there, lost=True)
    assert done == ["lost", "write", "compared", True, "closed"] and moved.connection is there


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
