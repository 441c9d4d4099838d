"""Progress of operations: refusals, retries, RNR, dropped datagrams."""

import pytest

from harness.tests.unit.connectx.pair import UD, VA, Pair
from harness.wire import cqe, eqe, wqe


@pytest.mark.parametrize(
    ("opcode", "local", "remote", "syndrome"),
    [
        (wqe.RDMA_WRITE, {"lr": 0}, {}, cqe.LOCAL_PROTECTION),
        (wqe.RDMA_WRITE, {}, {"rw": 0}, cqe.REMOTE_ACCESS),
        (wqe.RDMA_WRITE, {}, {"len": 99}, cqe.REMOTE_ACCESS),
        (wqe.RDMA_READ, {"lw": 0}, {}, cqe.LOCAL_PROTECTION),
        (wqe.RDMA_READ, {}, {"rr": 0}, cqe.REMOTE_ACCESS),
        (0x3E, {}, {}, cqe.LOCAL_QP_OPERATION),
    ],
)
def test_refusals_have_the_right_syndrome_and_move_nothing(pair, opcode, local, remote, syndrome):
    """Mutation: answer LOCAL_PROTECTION for both sides."""
    mine = pair.region([pair.at[0] | 3], **local)
    theirs = pair.region([pair.at[1] | 3], **remote)
    pair.send(opcode, (mine, VA, 100), remote=(theirs, VA), completion=0)
    pair.send(wqe.NOP, completion=0)
    assert pair.statuses(0) == [syndrome, cqe.FLUSH]
    assert pair.memory.read(pair.at[1], 100) == bytes(100)


def test_a_responder_without_rights_refuses(pair):
    """Mutation: skip Progress._permitted."""
    pair.command("RTS2RTS_QP", qpn=pair.b.number, opt_param_mask=1 << 3, qpc__rwe=0)
    pair.send(wqe.RDMA_WRITE, b"1", remote=(pair.keys[1], VA))
    assert pair.statuses(0) == [cqe.REMOTE_INVALID_REQUEST]
    kinds = [event.type for event in iter(pair.event, None)]
    assert kinds == [eqe.WQ_INVALID_REQUEST]


def test_a_message_too_long_breaks_both_ends(pair):
    """Mutation: cut it to the receive's size."""
    pair.receive((pair.keys[1], VA, 10))
    pair.receive((pair.keys[1], VA, 10))
    pair.send(wqe.SEND, (pair.keys[0], VA, 11))
    assert pair.statuses(0) == [cqe.REMOTE_INVALID_REQUEST]
    assert pair.statuses(1) == [cqe.LOCAL_LENGTH, cqe.FLUSH]


def test_a_receive_on_a_bad_key_fails_both_ends(pair):
    pair.receive((pair.keys[1] ^ 1, VA, 64))
    pair.send(wqe.SEND, (pair.keys[0], VA, 11))
    assert pair.statuses(0) == [cqe.REMOTE_OPERATION] and pair.statuses(1) == [cqe.LOCAL_PROTECTION]


def test_rnr_is_retried_then_fails(pair):
    """Mutation: never count rnr_tries."""
    pair.send(wqe.SEND, b"late")
    assert pair.done(0) is None
    pair.receive((pair.keys[1], VA, 64))
    pair.tick(0.001)
    assert pair.done(0)[1] == 0 and pair.memory.read(pair.at[1], 4) == b"late"
    pair.send(wqe.SEND, b"never")
    for _ in range(3):
        pair.tick(0.001)
    assert pair.statuses(0) == [cqe.RNR_RETRY_EXCEEDED]


@pytest.mark.parametrize("gone", [False, True])
def test_doorbells_use_up_no_retries(pair, gone):
    """Only time uses them up. Mutation: advance an operation before its `again_s`."""
    if gone:
        pair.command("2RST_QP", "qp_2rst", qpn=pair.b.number)
    for _ in range(4):
        pair.send(wqe.SEND, b"x")
    assert pair.statuses(0) == []
    pair.tick(0.01)
    assert pair.statuses(0) == []
    pair.tick(0.01)
    assert pair.statuses(0) == [cqe.RETRY_EXCEEDED if gone else cqe.RNR_RETRY_EXCEEDED, *[cqe.FLUSH] * 3]


def test_an_error_does_not_wait_for_a_retry(pair):
    """Mutation: look at `again_s` before the state."""
    pair.send(wqe.SEND, b"x")
    pair.command("2ERR_QP", "qp_2err", qpn=pair.a.number)
    assert pair.statuses(0) == [cqe.FLUSH]


def test_a_tick_that_retries_sets_acted(pair):
    """A log has no other trace of it. Mutations: set it for each tick; for none."""
    pair.send(wqe.SEND, b"never")
    acted = []
    for seconds in (0.0, 0.001, 0.0001, 0.001):
        pair.tick(seconds)
        acted.append(pair.card.acted)
    assert acted == [False, True, False, True]


def test_a_missing_peer_is_retried_then_fails(pair):
    """Mutation: complete as if it had arrived."""
    pair.command("2RST_QP", "qp_2rst", qpn=pair.b.number)
    pair.send(wqe.RDMA_WRITE, b"x", remote=(pair.keys[1], VA))
    assert pair.done(0) is None
    for _ in range(3):
        pair.tick(0.01)
    assert pair.statuses(0) == [cqe.RETRY_EXCEEDED]


def test_datagrams_need_the_q_key_and_follow_the_grh():
    """Mutation: skip the 40 bytes of the GRH."""
    pair = Pair(service=UD)
    for qkey in (0x11, 0x12):
        pair.receive((pair.keys[1], VA, 100))
        vector = wqe.AddressVector.new(qkey=qkey, dqpn=pair.b.number, extended=1, rlid=1)
        pair.send(wqe.SEND, b"datagram", vector=vector)
        assert pair.done(0)[1] == 0
    entry = pair.done(1)[2]
    assert (entry.byte_count, entry.rqpn) == (48, pair.a.number)
    assert pair.memory.read(pair.at[1] + 40, 8) == b"datagram" and pair.done(1) is None


def test_a_shared_queue_is_used_in_order_and_reports_its_limit():
    """Mutation: compare the limit with the posted entries, not with the remaining ones."""
    pair = Pair(srq=True)
    for index in range(3):
        pair.shared_receive(index, pair.keys[1], VA + 64 * index, 64, posted=index + 1)
    pair.command("MODIFY_RMP", rmpn=pair.srqn, bitmask__lwm=1, ctx__wq__lwm=2)
    for number in range(3):
        pair.send(wqe.SEND, bytes([number]) * 8)
        assert pair.done(1)[2].wqe_counter == number
    assert pair.memory.read(pair.at[1] + 128, 8) == b"\2" * 8
    events = [event for event in iter(pair.event, None) if event.type == eqe.SRQ_LIMIT]
    assert len(events) == 1 and eqe.QpSrqEqe(bytes(events[0])).qp_srq_n == pair.srqn


def datagram(pair, data):
    vector = wqe.AddressVector.new(qkey=0x11, dqpn=pair.b.number, extended=1, rlid=1)
    pair.send(wqe.SEND, data, vector=vector)
    assert pair.done(0)[1] == 0, "the sender of a datagram does not notice"


def test_a_failed_send_queue_still_receives_datagrams():
    """Mutation: receive in RTR and RTS only."""
    pair = Pair(service=UD)
    pair.receive((pair.keys[1], VA, 48))
    pair.b.post(0x3F)
    assert pair.statuses(1) == [cqe.LOCAL_QP_OPERATION]
    datagram(pair, b"datagram")
    assert pair.statuses(1) == [0] and pair.memory.read(pair.at[1] + 40, 8) == b"datagram"


def test_a_datagram_too_long_leaves_the_receive_posted():
    """Mutation: do not take the receive back."""
    pair = Pair(service=UD)
    pair.receive((pair.keys[1], VA, 48))
    datagram(pair, b"nine byte")
    assert pair.done(1) is None
    datagram(pair, b"datagram")
    assert pair.done(1)[2].byte_count == 48
    assert pair.memory.read(pair.at[1] + 40, 8) == b"datagram"


def test_a_datagram_too_long_for_a_shared_receive_completes_with_error():
    """It cannot be posted again there. Mutation: post it again all the same."""
    pair = Pair(service=UD, srq=True)
    pair.shared_receive(0, pair.keys[1], VA, 48, posted=1)
    datagram(pair, b"nine byte")
    opcode, syndrome, entry = pair.done(1)
    assert (opcode, syndrome, entry.wqe_counter) == (cqe.RESPONDER_ERROR, cqe.REMOTE_INVALID_REQUEST, 0)


@pytest.mark.parametrize(("kernel", "status"), [(0, cqe.LOCAL_PROTECTION), (1, 0)])
def test_only_kernel_qps_may_use_the_reserved_key(kernel, status):
    """Mutation: let each QP use the reserved key (`QueuePair.user`)."""
    pair = Pair()
    qp = pair.create_qp(pair.cqs[0][0], st=0, log_sq=6, log_rq=3, log_rq_stride=0, rlky=kernel)
    pair.to_rts_as(qp, pair.b)
    pair.command("2RST_QP", "qp_2rst", qpn=pair.b.number)
    pair.to_rts_as(pair.b, qp)
    pair.send(wqe.RDMA_WRITE, (0x500, pair.at[0], 8), remote=(pair.keys[1], VA), qp=qp)
    assert pair.statuses(0) == [status]


def test_the_reserved_key_is_refused_as_a_remote_key(pair):
    """Mutation: accept the reserved key as a remote one."""
    secret = pair.page()
    pair.memory.write(secret, b"secret!!")
    pair.send(wqe.RDMA_WRITE, b"overwrit", remote=(0x500, secret))
    assert pair.statuses(0) == [cqe.REMOTE_ACCESS] and pair.memory.read(secret, 8) == b"secret!!"
