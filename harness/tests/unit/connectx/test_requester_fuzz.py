"""Random WQEs, and random work over absent pages: data and counters are right."""

import random
import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.tests.unit.connectx.driver import layouts
from harness.tests.unit.connectx.pair import RC, UC, UD, VA, XRC, Pair
from harness.wire import eqe, wqe


def test_rings_outside_memory_break_one_queue_only(pair):
    """Mutation: catch DmaError in bar_write only; the next QP in line is not run."""
    qp = pair.card.hca.device.objects.table("qp")[pair.a.number]
    qp.ring.pages = (0xDEAD_0000,) * len(qp.ring.pages)
    pair.send(wqe.NOP)
    assert pair.kinds() == ["bad-address"]
    pair.send(wqe.NOP, qp=pair.b)
    assert pair.done(1)[1] == 0


def test_layouts_of_every_series_have_the_fields_of_the_data_path():
    for series in ("6.1", "6.12", "7.2", "7.3"):
        assert layouts(series)["qpc"].has("primary_address_path.ack_timeout")


_WQE = st.builds(
    lambda opcode, index, ds, flags, tail: (
        bytes([0, 0, index, opcode, 0, 0, 0, ds]) + bytes(3) + flags + tail
    ),
    st.one_of(st.sampled_from([0, 1, 8, 9, 10, 11, 16, 17, 18, 37]), st.integers(0, 255)),
    st.integers(0, 255),
    st.one_of(st.integers(0, 8), st.integers(0, 63)),
    st.binary(min_size=5, max_size=5),
    st.binary(max_size=112),
)


@settings(max_examples=300, deadline=None)
@given(
    st.lists(_WQE, min_size=1, max_size=6),
    st.integers(0, 0xFFFF),
    st.sampled_from([RC, UC, UD, XRC]),
    st.binary(max_size=64),
)
def test_random_wqes_break_a_queue_not_the_card(wqes, producer, service, receives):
    """Impossible sizes, keys that never existed, counters far ahead. Mutation: let parse() raise ValueError."""
    pair = Pair(service=service)
    at = pair.a.ring
    for work in wqes:
        pair.memory.write(at, work)
        at += 64 * ((len(work) + 63) // 64)
    pair.memory.write(pair.b.ring - 128, receives)
    pair.memory.write(pair.b.record, struct.pack(">I", producer & 0xF))
    pair.memory.write(pair.a.record + 4, struct.pack(">I", producer if producer & 1 else producer & 0x3F))
    pair.uar_write(0x800, struct.pack(">II", 0, pair.a.number << 8))
    for _ in range(4):
        pair.tick(0.01)
    assert "model-error" not in pair.kinds()
    pair.command("QUERY_QP", qpn=pair.a.number)


def settle(pair, draw, pages):
    """Resolve faults until there are none; each time the driver maps some pages, rarely nothing.

    The committed bytes of an operation never decrease.
    """
    committed = 0
    while (fault := pair.fault()) is not None:
        if not isinstance(fault, eqe.PageFaultMemoryEqe):
            assert fault.bytes_committed >= committed
            committed = fault.bytes_committed
        pair.uar_write(0x48, struct.pack(">I", pair.eqn << 24 | pair.seen_events))
        for end in range(2):
            for page in range(4):
                if draw.random() < 0.5:
                    pair.entry(pair.keys[end], page, pages[end][page] | 3)
        pair.resume(fault)


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("memory_scheme", [False, True])
def test_random_work_over_absent_pages(seed, memory_scheme):
    """Data, order and counters against a model of a few lines, with pages absent at random on both sides.

    Mutation: set `done` to the bytes moved last instead of adding them.
    """
    draw = random.Random(seed)
    pair = Pair("connectx-7" if memory_scheme else "connectx-5", scheme_memory=memory_scheme)
    pages = [[pair.at[end] + 4096 * page for page in range(4)] for end in range(2)]
    for end in range(2):
        pair.memory.write(pair.at[end], draw.randbytes(16384))
    want = [bytearray(pair.memory.read(pair.at[end], 16384)) for end in range(2)]
    for _ in range(60):
        for end in range(2):
            for page in range(4):
                pair.entry(pair.keys[end], page, draw.choice((0, pages[end][page] | 1, pages[end][page] | 3)))
        size, local, remote_at = draw.randrange(1, 8000), draw.randrange(8000), draw.randrange(8000)
        opcode = draw.choice((wqe.SEND, wqe.RDMA_WRITE, wqe.RDMA_READ))
        cut = draw.randrange(size)
        segments = [(pair.keys[0], VA + local, cut), (pair.keys[0], VA + local + cut, size - cut)]
        segments = [segment for segment in segments if segment[2]]
        if opcode == wqe.SEND:
            pair.receive((pair.keys[1], VA + remote_at, size))
        remote = None if opcode == wqe.SEND else (pair.keys[1], VA + remote_at)
        pair.send(opcode, *segments, remote=remote)
        if opcode == wqe.RDMA_READ:
            want[0][local : local + size] = want[1][remote_at : remote_at + size]
        else:
            want[1][remote_at : remote_at + size] = want[0][local : local + size]
        settle(pair, draw, pages)
        assert pair.done(0)[1] == 0
        if opcode == wqe.SEND:
            assert pair.done(1)[2].byte_count == size
        assert [pair.memory.read(pair.at[end], 16384) for end in range(2)] == want
    counters = pair.card.counters()["faults"]
    assert counters["raised"] == counters["resumed"] > 20 and counters["open"] == 0
    assert pair.card.findings() == []
