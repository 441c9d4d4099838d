"""Prefetch advice: its encoding, and the checks of its effect."""

import struct
from types import SimpleNamespace

import pytest

from harness.guest.mm.libc import PAGE_BYTES
from harness.guest.mm.memory import Memory
from harness.guest.rdma.registration import Registration
from harness.guest.scenarios import advise
from harness.values.case import Region

START = 0x7000_0000


def pair(mapping="anonymous", iova=START, prot="write"):
    memory = SimpleNamespace(
        region=Region(8 * PAGE_BYTES, mapping=mapping, prot=prot), start=START, pages_start=START, pages=8
    )
    return SimpleNamespace(memories=[None, memory], registrations=[None, SimpleNamespace(address=iova)])


@pytest.fixture
def registered():
    memory = Memory(Region(5 * 4096), 2)
    yield SimpleNamespace(
        memories=[None, memory],
        registrations=[None, Registration(3, 0x11, 0x22, 0x5000)],
        connection=SimpleNamespace(pd=SimpleNamespace(handle=7), context=SimpleNamespace(cmd_fd=-1)),
    )
    memory.close()


def test_request_is_a_header_and_four_attributes():
    """Mutation: leave the header out of the length; put the number of pieces for their bytes."""
    data = advise.advise_request(14, 7, 2, 1, (0x1234, 3))
    assert struct.unpack_from("=HHHHQII", data) == (len(data), 7, 2, 4, 0, 14, 0)
    attributes = list(struct.iter_unpack("=HHHHQ", data[24:]))
    assert attributes == [(0, 0, 1, 0, 7), (1, 8, 1, 0, 2), (2, 4, 1, 0, 1), (3, 48, 1, 0, 0x1234)]


def test_invalid_advice_must_be_refused(registered):
    """Mutation: expect a valid key before an invalid one to make the call valid."""
    checks = {check.text: check for check in advise.on_demand(registered)}
    assert not checks["the whole region"].refused
    assert checks["a valid key, then an invalid one"].refused == (advise.FLUSH, advise.LATER)
    (piece,) = checks["beyond the region's end"].pieces
    assert piece[1] + piece[2] > 0x5000 + 5 * 4096
    (pinned,) = advise.pinned(registered, Registration(4, 0x33, 0x44, 0x9000))
    assert pinned.pieces == ((0x33, 0x9000, 5 * 4096),) and advise.LATER in pinned.refused


@pytest.mark.parametrize(
    ("kind", "present", "problems"),
    [
        ("PREFETCH", 3, []),
        ("PREFETCH_WRITE", 3, []),
        ("PREFETCH", 2, ["2 pages are present, 3 were advised"]),
        ("PREFETCH", 4, ["4 pages are present, 3 were advised"]),
        (advise.NO_FAULT, 0, []),
        (advise.NO_FAULT, 1, ["1 pages are present"]),
    ],
)
def test_advised_pages_must_be_present(monkeypatch, kind, present, problems):
    """Two overlapping pieces, three pages in all.

    Mutations: count the pieces' pages twice; accept a kernel that does nothing; look at the registered address, which
    may be another; accept more pages than were advised.
    """
    monkeypatch.setattr(advise.pagemap, "present", lambda start, pages: present)
    for iova in (START, 0):
        pieces = ((1, iova + 100, PAGE_BYTES), (1, iova + PAGE_BYTES + 200, PAGE_BYTES))
        assert advise._not_done(pair(iova=iova), kind, pieces) == problems


@pytest.mark.parametrize("mapping", ["file", "shared", "thp", "hugetlb"])
def test_pages_around_advised_ones_may_be_mapped_unless_anonymous(monkeypatch, mapping):
    """Mutations: require the exact number; accept fewer."""
    piece = ((1, START, 2 * PAGE_BYTES),)
    for present, problems in ((8, []), (1, ["1 pages are present, 2 were advised"])):
        monkeypatch.setattr(advise.pagemap, "present", lambda start, pages, present=present: present)
        assert advise._not_done(pair(mapping), "PREFETCH", piece) == problems


@pytest.mark.parametrize(
    ("prot", "kind", "status", "problems"),
    [
        ("read", advise.WRITE, 0, ["was to be refused and was not"]),
        ("read", advise.WRITE, 1, []),
        ("read", "PREFETCH", 22, ["errno 22"]),
        ("write", advise.WRITE, 1, ["errno 1"]),
        ("write", advise.WRITE, 0, []),
    ],
)
def test_prefetch_for_write_needs_a_write_flag(monkeypatch, prot, kind, status, problems):
    """Mutations: accept it for a region without; refuse it to all; check such a region by a write."""
    monkeypatch.setattr(advise, "KINDS", {kind: 7})
    monkeypatch.setattr(advise, "_call", lambda *arguments: status)
    monkeypatch.setattr(advise, "_not_done", lambda *arguments: [])
    checked = []
    tried = pair(prot=prot)
    tried.invalidate = lambda end: None
    tried.read = lambda number: checked.append("read")
    tried.write = lambda number, absent: checked.append("write")
    result = advise._try(tried, advise.AdviceCheck("all", ((1, START, 1),)), 1)
    assert [text.rpartition(": ")[2] for text in result] == 2 * problems
    assert checked == [prot, prot]
