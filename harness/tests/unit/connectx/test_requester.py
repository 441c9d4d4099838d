"""What moves between two QPs."""

import struct

from harness.connectx.datapath import requester
from harness.tests.unit.connectx.pair import VA
from harness.wire import cqe, wqe


def test_many_work_requests_go_around_the_rings(pair):
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


def test_a_long_queue_has_turns(pair, monkeypatch):
    """A guest that posts as fast as the card works may not shut out others. Mutations: run a queue until it is empty;
    give it a turn at each doorbell; forget it.
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


def test_a_tick_is_one_queues_turn(pair, monkeypatch):
    """Doorbells and commands are read between. Mutation: give all that wait their turn in Requester.go_on."""
    monkeypatch.setattr(requester, "SLICE_WQES", 4)
    for qp in (pair.a, pair.b):
        for number in range(8):
            qp.post(wqe.NOP, ring=number == 7)
    assert [len(pair.statuses(end)) for end in (0, 1)] == [4, 4]
    assert pair.card.tick() == 0.0
    assert [len(pair.statuses(end)) for end in (0, 1)] == [4, 0]
    assert pair.card.tick() is None
    assert [len(pair.statuses(end)) for end in (0, 1)] == [0, 4]


def test_a_timer_that_fails_stops_nothing_else(pair, monkeypatch):
    """Here the flush of a queue whose record is nowhere. Mutations: guard timers and turns together in Card.tick, or
    answer None.
    """
    monkeypatch.setattr(requester, "SLICE_WQES", 4)
    pair.command("2ERR_QP", "qp_2err", qpn=pair.b.number)
    pair.card.hca.device.objects.table("qp")[pair.b.number].record = 0x10
    for number in range(12):
        pair.a.post(wqe.NOP, ring=number == 11)
    pair.now += 0.01
    assert pair.card.tick() == 0.0 and pair.kinds() == ["bad-address"]
    assert pair.statuses(0) == [0] * 8


def test_a_queue_that_fails_in_its_turn_waits_once(pair, monkeypatch):
    """Its failure wakes it. Mutation: do not take it off the ready list in Requester._postpone: a destroyed queue is
    run again.
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


def test_a_queue_that_ends_with_its_turn_does_not_wait(pair, monkeypatch):
    """The tick that takes it off the list would leave no trace in a log. Mutation: answer True whenever a turn is over
    in Requester._turn.
    """
    monkeypatch.setattr(requester, "SLICE_BYTES", 4096)
    pair.send(wqe.RDMA_WRITE, (pair.keys[0], VA, 8192), remote=(pair.keys[1], VA))
    assert pair.statuses(0) == [0] and not pair.card.hca.requester.waiting


def test_what_is_behind_a_failure_may_be_flushed_later(pair):
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
