"""Advice and changed registrations: what is asked of the kernel, byte by byte, and which trials there are."""

import struct
from types import SimpleNamespace

import pytest

from harness.guest.mm.memory import Memory
from harness.guest.rdma.registration import Registration
from harness.guest.scenarios import advise, rereg
from harness.values.case import Region


@pytest.fixture
def pair():
    memory = Memory(Region(5 * 4096), 2)
    yield SimpleNamespace(
        memories=[None, memory],
        registrations=[None, Registration(3, 0x11, 0x22, 0x5000)],
        connection=SimpleNamespace(pd=SimpleNamespace(handle=7), context=SimpleNamespace(cmd_fd=-1)),
    )
    memory.close()


def test_a_request_for_advice_is_a_header_and_four_attributes():
    """Mutation: leave the header out of the length; give the number of pieces for their bytes."""
    data = advise.advise_request(14, 7, 2, 1, (0x1234, 3))
    assert struct.unpack_from("=HHHHQII", data) == (len(data), 7, 2, 4, 0, 14, 0)
    found = list(struct.iter_unpack("=HHHHQ", data[24:]))
    assert found == [(0, 0, 1, 0, 7), (1, 8, 1, 0, 2), (2, 4, 1, 0, 1), (3, 48, 1, 0, 0x1234)]


def test_what_is_wrong_in_advice_is_to_be_refused(pair):
    """Mutation: expect a good key before a bad one to make the call good."""
    trials = {trial.text: trial for trial in advise.on_demand(pair)}
    assert not trials["the whole region"].refused
    assert trials["a good key, then one that nobody has"].refused == (advise.FLUSH, advise.LATER)
    (piece,) = trials["beyond its end"].pieces
    assert piece[1] + piece[2] > 0x5000 + 5 * 4096
    (pinned,) = advise.pinned(pair, Registration(4, 0x33, 0x44, 0x9000))
    assert pinned.pieces == ((0x33, 0x9000, 5 * 4096),) and advise.LATER in pinned.refused


def test_a_changed_registration_is_asked_for_with_its_old_handle(pair, monkeypatch):
    """Mutation: ask with the key; take the new address although only rights change."""
    asked = []
    monkeypatch.setattr(rereg.os, "write", lambda fd, data: asked.append(data))
    memory = pair.memories[1]
    made = rereg.call(pair, rereg.ACCESS, memory, 0x4F)
    fields = struct.unpack("=IHHQIIQQQII", asked[0])
    assert fields[:3] == (11, len(asked[0]) // 4, 2)
    assert fields[4:] == (3, rereg.ACCESS, memory.start, 5 * 4096, memory.start, 7, 0x4F)
    assert made == Registration(3, 0, 0, 0x5000)
    assert rereg.call(pair, rereg.TRANSLATION, memory, 0x4F).address == memory.start
    rereg.call(pair, rereg.PD, memory, 0x4F, 9)
    assert struct.unpack("=IHHQIIQQQII", asked[2])[9] == 9
