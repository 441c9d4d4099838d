"""Receives, from the message that takes one to its completion."""

import pytest

from harness.tests.unit.connectx.pair import UD, VA, Pair
from harness.wire import cqe, eqe, wqe

SCHEMES = [("connectx-5", False), ("connectx-7", True)]


def broken(pair, qp):
    pair.command("2ERR_QP", "qp_2err", qpn=qp.number)


def datagram(pair, *segments, qp=None):
    vector = bytes(wqe.AddressVector.new(qkey=0x11, dqpn=pair.b.number, extended=1, rlid=1))
    pair.send(wqe.SEND, *segments, vector=vector, qp=qp)


def received(pair):
    """Return (syndrome, WQE index) of each completion at the receiver."""
    entries = []
    while (one := pair.done(1)) is not None:
        entries.append((one[1], one[2].wqe_counter))
    return entries


def absent(pair, end):
    """Make the first page of that end's key absent; return a function that makes it present."""
    pair.entry(pair.keys[end], 0, 0)
    return lambda: pair.entry(pair.keys[end], 0, pair.at[end] | 3)


@pytest.fixture
def datagrams():
    """Return datagram queues, with three receives posted and a second sender."""
    pair = Pair(service=UD)
    for index in range(3):
        pair.receive((pair.keys[1], VA + 4096 + 1024 * index, 200))
    pair.c = pair.end(UD, pair.cqs[0][0], None)
    pair.to_rts_as(pair.c, pair.b)
    return pair


@pytest.mark.parametrize("shared", [False, True])
def test_a_refused_send_takes_no_receive(shared):
    """Mutation: take the receive before the local side is looked at."""
    pair = Pair(srq=shared)
    for index in range(2):
        if shared:
            pair.shared_receive(index, pair.keys[1], VA, 64, posted=index + 1)
        else:
            pair.receive((pair.keys[1], VA, 64))
    pair.send(wqe.SEND, (0x123400, VA, 10))
    assert pair.statuses(0) == [cqe.LOCAL_PROTECTION] and received(pair) == []
    broken(pair, pair.b)
    assert received(pair) == ([] if shared else [(cqe.FLUSH, 0), (cqe.FLUSH, 1)])
    if shared:
        assert pair.card.hca.device.objects.table("srq")[pair.srqn].taken == 0


def test_a_send_whose_first_page_is_absent_takes_no_receive(pair):
    """Mutation: take it when nothing can be sent yet."""
    absent(pair, 0)
    pair.receive((pair.keys[1], VA, 64))
    pair.send(wqe.SEND, (pair.keys[0], VA, 10))
    assert pair.fault().pf_type == eqe.FAULT_REQUESTER_SEND_WRITE
    assert pair.card.hca.device.objects.table("qp")[pair.b.number].received == 0


@pytest.mark.parametrize(("model", "memory"), SCHEMES)
@pytest.mark.parametrize("sender_first", [False, True])
def test_a_taken_receive_is_flushed_first(model, memory, sender_first):
    """The message waits for the receiver's page.

    Mutations: skip Responder.drop in `enter_error`; drop it after the flush of the rest.
    """
    pair = Pair(model, scheme_memory=memory)
    for _ in range(2):
        pair.receive((pair.keys[1], VA, 64))
    absent(pair, 1)
    pair.send(wqe.SEND, (pair.keys[0], VA, 10))
    assert pair.fault() is not None
    if sender_first:
        broken(pair, pair.a)
        assert pair.statuses(0) == [cqe.FLUSH]
    broken(pair, pair.b)
    assert received(pair) == [(cqe.FLUSH, 0), (cqe.FLUSH, 1)]
    assert pair.card.counters()["faults"]["open"] == 0


@pytest.mark.parametrize(("model", "memory"), SCHEMES)
def test_a_taken_shared_receive_is_flushed_before_the_last_wqe_event(model, memory):
    """Mutation: post SRQ_LAST_WQE first, or leave shared receives out."""
    pair = Pair(model, scheme_memory=memory, srq=True)
    pair.shared_receive(0, pair.keys[1], VA, 64, posted=1)
    absent(pair, 1)
    pair.send(wqe.SEND, (pair.keys[0], VA, 10))
    fault = pair.fault()
    posted = []
    pair.card.hca.events.post = lambda kind, event: posted.append((kind, received(pair)))
    broken(pair, pair.b)
    assert fault is not None and posted[0] == (eqe.SRQ_LAST_WQE, [(cqe.FLUSH, 0)])


@pytest.mark.parametrize(("model", "memory"), SCHEMES)
def test_a_reset_receiver_receives_from_the_start(model, memory):
    """Mutation: keep the receive, or `done` of the message."""
    pair = Pair(model, scheme_memory=memory)
    pair.memory.write(pair.at[0], b"message")
    pair.entry(pair.keys[1], 1, 0)
    pair.receive((pair.keys[1], VA + 4092, 64))
    pair.send(wqe.SEND, (pair.keys[0], VA, 7))
    assert pair.fault() is not None
    pair.command("2RST_QP", "qp_2rst", qpn=pair.b.number)
    pair.b.received = 0
    pair.to_rts_as(pair.b, pair.a)
    pair.receive((pair.keys[1], VA + 8192, 64))
    pair.tick(0.01)
    assert pair.statuses(0) == [0] and received(pair) == [(0, 0)]
    assert pair.memory.read(pair.at[1] + 8192, 7) == b"message"


def test_a_refused_write_takes_no_receive(pair):
    """Mutation: take the receive of a write with immediate before it is done."""
    for _ in range(2):
        pair.receive((pair.keys[1], VA, 64))
    pair.send(wqe.RDMA_WRITE_IMM, (pair.keys[0], VA, 10), remote=(0x999900, VA))
    assert pair.statuses(0) == [cqe.REMOTE_ACCESS]
    assert received(pair) == [(cqe.FLUSH, 0), (cqe.FLUSH, 1)]


def test_a_write_with_immediate_waits_for_its_receive_at_its_end(pair):
    """Mutation: complete it without one."""
    pair.send(wqe.RDMA_WRITE_IMM, b"data", remote=(pair.keys[1], VA), general_id=7)
    assert pair.memory.read(pair.at[1], 4) == b"data" and pair.statuses(0) == []
    pair.receive((pair.keys[1], VA, 64))
    pair.tick(0.01)
    assert pair.statuses(0) == [0] and pair.done(1)[2].immediate == 7


def test_a_datagram_to_a_bad_receive_breaks_its_receiver(datagrams):
    """As every receiver that fails. Mutation: break reliable receivers only."""
    pair = datagrams
    pair.card.hca.device.objects.table("mkey")[pair.keys[1] >> 8].fields["lw"] = 0
    datagram(pair, b"hello")
    assert pair.statuses(0) == [0]
    assert received(pair) == [(cqe.LOCAL_PROTECTION, 0), (cqe.FLUSH, 1), (cqe.FLUSH, 2)]


@pytest.mark.parametrize("error", [0, 1])
def test_a_datagram_that_waits_for_a_local_page_takes_no_receive(datagrams, error):
    """It is sent as a whole. Mutation: take the receive when a part of it is present."""
    pair = datagrams
    back = absent(pair, 0)
    datagram(pair, b"in line", (pair.keys[0], VA, 10))
    fault = pair.fault()
    datagram(pair, b"second", qp=pair.c)
    assert received(pair) == [(0, 0)] and pair.memory.read(pair.at[1] + 4096 + 40, 6) == b"second"
    if not error:
        back()
    pair.resume(fault, error)
    datagram(pair, b"third", qp=pair.c)
    assert received(pair) == ([(0, 1)] if error else [(0, 1), (0, 2)])


@pytest.mark.parametrize("gone", [False, True])
def test_datagrams_complete_in_the_order_of_their_receives(datagrams, gone):
    """The first waits for the receiver's page, or never ends: then the next one uses its receive.

    Mutations: do not check whether the receiver is occupied; take the next one; count the header twice.
    """
    pair = datagrams
    pair.entry(pair.keys[1], 1, 0)
    datagram(pair, b"first")
    fault = pair.fault()
    datagram(pair, b"second", qp=pair.c)
    assert received(pair) == []
    pair.entry(pair.keys[1], 1, pair.at[1] + 4096 | 3)
    if gone:
        pair.command("2RST_QP", "qp_2rst", qpn=pair.a.number)
    else:
        pair.resume(fault)
    pair.tick(0.01)
    assert received(pair) == ([(0, 0)] if gone else [(0, 0), (0, 1)])
    first = pair.memory.read(pair.at[1] + 4096 + 40, 6)
    assert first == (b"second" if gone else b"first\0")
