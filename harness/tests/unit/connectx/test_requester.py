"""Send queues: rings, doorbells, time slices."""

import struct

from harness.connectx.datapath import requester
from harness.tests.unit.connectx.pair import VA
from harness.wire import cqe, wqe


def test_work_requests_wrap_around_the_rings(pair):
    """Mutation: count WQEs instead of blocks in Requester._finish."""
    for number in range(200):
        pair.receive((pair.keys[1], VA, 4096))
        body = struct.pack(">I", number) * (1 + number % 20)
        pair.send(wqe.SEND, body)
        assert pair.memory.read(pair.at[1], len(body)) == body
        assert pair.done(1)[2].byte_count == len(body) and pair.done(0)[1] == 0
    assert pair.card.findings() == []


def test_a_blueflame_write_rings_once(pair):
    """A WQE of 64 bytes in writes of 8. Mutation: take each part for a doorbell of its own."""
    pair.a.post(wqe.NOP, ring=False)
    pair.memory.write(pair.a.record + 4, struct.pack(">I", 1))
    for part in range(0, 64, 8):
        data = struct.pack(">II", wqe.NOP, pair.a.number << 8 | 1) if not part else b"\xff" * 8
        pair.uar_write(0xA00 + part, data)
    assert pair.done(0)[1] == 0 and pair.card.findings() == []


def test_a_long_queue_runs_in_time_slices(pair, monkeypatch):
    """A guest that posts as fast as the card works does not starve others.

    Mutations: run a queue until it is empty; give it a slice at each doorbell; forget it.
    """
    monkeypatch.setattr(requester, "SLICE_WQES", 4)
    for number in range(14):
        pair.a.post(wqe.NOP, ring=number == 13)
    assert pair.statuses(0) == [0] * 4
    pair.a.post(wqe.NOP)
    pair.b.post(wqe.NOP)
    assert pair.statuses(0) == [] and pair.statuses(1) == [0]
    assert [pair.card.tick() == 0.0 for _ in range(3)] == [True, True, False]
    assert pair.statuses(0) == [0] * 11 and pair.card.findings() == []


def test_a_tick_is_the_time_slice_of_one_queue(pair, monkeypatch):
    """Doorbells and commands are served in between. Mutation: run all deferred QPs in Requester.go_on."""
    monkeypatch.setattr(requester, "SLICE_WQES", 4)
    for qp in (pair.a, pair.b):
        for number in range(8):
            qp.post(wqe.NOP, ring=number == 7)
    assert [len(pair.statuses(end)) for end in (0, 1)] == [4, 4]
    assert pair.card.tick() == 0.0
    assert [len(pair.statuses(end)) for end in (0, 1)] == [4, 0]
    assert pair.card.tick() is None
    assert [len(pair.statuses(end)) for end in (0, 1)] == [0, 4]


def test_a_failing_timer_stops_nothing_else(pair, monkeypatch):
    """The timer flushes a queue whose record is outside memory.

    Mutations: guard timers and time slices together in Card.tick, or return None.
    """
    monkeypatch.setattr(requester, "SLICE_WQES", 4)
    pair.command("2ERR_QP", "qp_2err", qpn=pair.b.number)
    pair.card.hca.device.objects.table("qp")[pair.b.number].record = 0x10
    for number in range(12):
        pair.a.post(wqe.NOP, ring=number == 11)
    pair.now += 0.01
    assert pair.card.tick() == 0.0 and pair.kinds() == ["bad-address"]
    assert pair.statuses(0) == [0] * 8


def test_a_queue_that_fails_in_its_time_slice_is_deferred_once(pair, monkeypatch):
    """Its failure wakes it.

    Mutation: do not remove it from the ready list in RunQueue.defer: a destroyed queue is run again.
    """
    monkeypatch.setattr(requester, "SLICE_WQES", 4)
    pair.a.post(0x3F, ring=False)
    for number in range(20):
        pair.a.post(wqe.NOP, ring=number == 19)
    assert pair.statuses(0) == [cqe.LOCAL_QP_OPERATION, *[cqe.FLUSH] * 3]
    pair.command("DESTROY_QP", qpn=pair.a.number)
    assert not pair.card.hca.requester.waiting
    pair.tick(0)
    assert pair.statuses(0) == []


def test_a_queue_that_ends_with_its_time_slice_is_not_deferred(pair, monkeypatch):
    """The tick that removes it would leave no trace in a log.

    Mutation: return True whenever a slice is over in Requester._slice.
    """
    monkeypatch.setattr(requester, "SLICE_BYTES", 4096)
    pair.send(wqe.RDMA_WRITE, (pair.keys[0], VA, 8192), remote=(pair.keys[1], VA))
    assert pair.statuses(0) == [0] and not pair.card.hca.requester.waiting


def test_the_flush_after_a_failed_umr_may_be_delayed(pair):
    """Mutation: flush at once; never; forget the time at a reset."""
    pair.a.post(wqe.ATOMIC_CS, b"")
    (failed,) = pair.statuses(0)
    assert failed
    qp = pair.card.hca.device.objects.table("qp")[pair.a.number]
    qp.flush_due_s = pair.now + 0.1
    pair.a.post(wqe.NOP)
    assert pair.statuses(0) == []
    pair.tick(0.2)
    assert pair.statuses(0) == [cqe.FLUSH]
