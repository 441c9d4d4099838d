"""Page faults in all three schemes, and their resumes."""

import struct

import pytest

from harness.tests.unit.connectx.pair import PATTERN, VA, Pair
from harness.wire import cqe, eqe, wqe


def test_a_send_from_an_absent_page_continues_where_it_stopped(pair):
    """Mutation: bytes_committed off by one."""
    pair.entry(pair.keys[0], 1, 0)
    pair.receive((pair.keys[1], VA, 8192))
    pair.send(wqe.SEND, (pair.keys[0], VA + 100, 8000))
    fault = pair.fault()
    assert (fault.sub_type, fault.pf_type, fault.wq) == (0, eqe.FAULT_REQUESTER_SEND_WRITE, pair.a.number)
    assert (fault.bytes_committed, fault.wqe_index) == (3996, 0)
    assert pair.done(0) is None and pair.memory.read(pair.at[1], 3996) == PATTERN[100:4096]
    pair.entry(pair.keys[0], 1, pair.at[0] + 4096 | 3)
    pair.resume(fault)
    assert pair.done(0)[1] == 0 and pair.done(1)[2].byte_count == 8000
    assert pair.memory.read(pair.at[1], 8000) == PATTERN[100:8100]
    counters = pair.card.counters()["faults"]
    assert (counters["raised"], counters["resumed"], counters["open"]) == (1, 1, 0)


def test_a_resume_before_the_page_is_present_faults_again(pair):
    """Mutation: go on after a resume without looking."""
    pair.entry(pair.keys[0], 0, 0)
    pair.send(wqe.RDMA_WRITE, (pair.keys[0], VA, 8), remote=(pair.keys[1], VA))
    first = pair.fault()
    pair.resume(first)
    second = pair.fault()
    assert second.token != first.token and pair.done(0) is None


@pytest.mark.parametrize(
    ("opcode", "page", "kind"),
    [(wqe.RDMA_WRITE, 0, eqe.FAULT_RDMA_WRITE), (wqe.RDMA_READ, 0, eqe.FAULT_RDMA_READ)],
)
def test_a_remote_page_of_an_rdma_operation(pair, opcode, page, kind):
    """Address and length are the operation's own: the driver adds what is committed. Mutation: add it here."""
    pair.entry(pair.keys[1], 1, 0)
    pair.send(opcode, (pair.keys[0], VA, 6000), remote=(pair.keys[1], VA + 10))
    fault = pair.fault()
    assert (fault.sub_type, fault.pf_type, fault.r_key) == (1, kind, pair.keys[1])
    assert (fault.bytes_committed, fault.va, fault.op_length) == (4086, VA + 10, 6000)
    pair.entry(pair.keys[1], 1, pair.at[1] + 4096 | 3)
    pair.resume(fault)
    assert pair.done(0)[1] == 0


def test_a_write_to_a_read_only_page_faults(pair):
    """Mutation: let the read bit grant writes."""
    pair.entry(pair.keys[1], 0, pair.at[1] | 1)
    pair.send(wqe.RDMA_WRITE, b"x", remote=(pair.keys[1], VA))
    assert pair.fault() is not None and pair.memory.read(pair.at[1], 1) == b"\0"


@pytest.mark.parametrize("shared", [False, True])
def test_a_receive_on_an_absent_page(shared):
    """Mutation: name the QP where the SRQ's number belongs."""
    pair = Pair(srq=shared)
    pair.entry(pair.keys[1], 0, 0)
    if shared:
        pair.shared_receive(0, pair.keys[1], VA, 64, posted=1)
    else:
        pair.receive((pair.keys[1], VA, 64))
    pair.send(wqe.SEND, b"hello")
    fault = pair.fault()
    expected = (eqe.FAULT_RMP, pair.srqn) if shared else (eqe.FAULT_RESPONDER, pair.b.number)
    assert (fault.pf_type, fault.wq) == expected
    pair.entry(pair.keys[1], 0, pair.at[1] | 3)
    pair.resume(fault)
    assert pair.memory.read(pair.at[1], 5) == b"hello" and pair.done(1)[1] == pair.done(0)[1] == 0


def test_a_read_into_an_absent_page_is_of_its_own_type(pair):
    pair.entry(pair.keys[0], 0, 0)
    pair.send(wqe.RDMA_READ, (pair.keys[0], VA, 8), remote=(pair.keys[1], VA))
    assert pair.fault().pf_type == eqe.FAULT_REQUESTER_READ_ATOMIC


def test_an_atomic_happens_once_however_often_it_faults(pair):
    """Mutation: do the exchange again when the answer's page was absent."""
    pair.memory.write(pair.at[1], struct.pack("<Q", 1))
    pair.entry(pair.keys[0], 0, 0)
    pair.send(wqe.ATOMIC_FA, (pair.keys[0], VA, 8), remote=(pair.keys[1], VA), atomic=(1, 0))
    pair.resume(pair.fault())
    fault = pair.fault()
    pair.entry(pair.keys[0], 0, pair.at[0] | 3)
    pair.resume(fault)
    assert struct.unpack("<Q", pair.memory.read(pair.at[1], 8)) == (2,)
    assert struct.unpack("<Q", pair.memory.read(pair.at[0], 8)) == (1,)


@pytest.mark.parametrize(
    ("side", "local", "remote"),
    [(0, [cqe.LOCAL_PROTECTION], []), (1, [cqe.REMOTE_OPERATION], [cqe.LOCAL_PROTECTION])],
)
def test_a_resume_with_error_breaks_the_queue(pair, side, local, remote):
    """Mutation: take the error bit for a plain resume."""
    pair.entry(pair.keys[side], 0, 0)
    pair.receive((pair.keys[1], VA, 64))
    pair.send(wqe.SEND, (pair.keys[0], VA, 8))
    pair.resume(pair.fault(), error=1)
    assert pair.statuses(0) == local and pair.statuses(1) == remote
    assert pair.card.counters()["faults"]["failed"] == 1


def test_a_resume_of_no_fault_or_another_type_is_a_finding(pair):
    """Mutation: accept any type."""
    pair.entry(pair.keys[0], 0, 0)
    pair.send(wqe.RDMA_WRITE, (pair.keys[0], VA, 8), remote=(pair.keys[1], VA))
    fault = pair.fault()
    wrong = eqe.PageFaultWqeEqe(bytearray(bytes(fault)))
    wrong.pf_type = eqe.FAULT_RESPONDER
    with pytest.raises(Exception, match="status 0x5"):
        pair.resume(wrong)
    pair.entry(pair.keys[0], 0, pair.at[0] | 3)
    pair.resume(fault)
    with pytest.raises(Exception, match="status 0x5"):
        pair.resume(fault)
    assert pair.kinds() == ["bad-resume", "bad-resume"] and pair.done(0)[1] == 0


def test_memory_scheme_names_key_page_and_length():
    """Mutation: report the address where it stopped instead of its page."""
    pair = Pair("connectx-7", scheme_memory=True)
    pair.entry(pair.keys[1], 1, 0)
    pair.entry(pair.keys[1], 2, 0)
    pair.send(wqe.RDMA_WRITE, (pair.keys[0], VA, 8000), remote=(pair.keys[1], VA + 500))
    fault = pair.fault()
    assert (fault.sub_type, fault.last, fault.mkey) == (2, 1, pair.keys[1])
    assert (fault.va, fault.demand_pages) == (VA + 4096, 2)
    for page in (1, 2):
        pair.entry(pair.keys[1], page, pair.at[1] + 4096 * page | 3)
    pair.resume(fault)
    assert pair.done(0)[1] == 0
    pair.entry(pair.keys[1], 3, 0)
    pair.send(wqe.RDMA_WRITE, b"x", remote=(pair.keys[1], VA + 3 * 4096 + 77))
    fault = pair.fault()
    assert (fault.va, fault.demand_pages) == (VA + 3 * 4096, 1)


def test_the_form_of_2015_names_queue_and_flags():
    """No token: a resume with another flag matches no fault. Mutation: put a token into the event."""
    pair = Pair("connect-ib", "6.1")
    pair.entry(pair.keys[0], 0, 0)
    pair.send(wqe.RDMA_WRITE, (pair.keys[0], VA, 8), remote=(pair.keys[1], VA))
    fault = pair.fault()
    assert (fault.token, fault.pf_type, fault.wq) == (0, 1, pair.a.number)
    wrong = eqe.PageFaultWqeEqe(bytearray(bytes(fault)))
    wrong.pf_type = 2
    with pytest.raises(Exception, match="status 0x5"):
        pair.resume(wrong)
    pair.entry(pair.keys[0], 0, pair.at[0] | 3)
    pair.resume(fault)
    assert pair.done(0)[1] == 0


def test_destroying_a_queue_drops_its_fault(pair):
    """Mutation: keep the fault open."""
    pair.entry(pair.keys[0], 0, 0)
    pair.send(wqe.RDMA_WRITE, (pair.keys[0], VA, 8), remote=(pair.keys[1], VA))
    pair.command("2RST_QP", "qp_2rst", qpn=pair.a.number)
    pair.command("DESTROY_QP", qpn=pair.a.number)
    counters = pair.card.counters()["faults"]
    assert (counters["open"], counters["dropped"]) == (0, 1)


@pytest.mark.parametrize(("destroyed", "findings"), [(False, 0), (True, 1)])
def test_a_fault_of_a_queue_in_error_may_still_be_resumed(pair, destroyed, findings):
    """The driver is working on it. Mutations: report a finding; report none after the queue is destroyed."""
    pair.entry(pair.keys[0], 0, 0)
    pair.send(wqe.RDMA_WRITE, (pair.keys[0], VA, 8), remote=(pair.keys[1], VA))
    fault = pair.fault()
    pair.command("2ERR_QP", "qp_2err", qpn=pair.a.number)
    if destroyed:
        pair.command("DESTROY_QP", qpn=pair.a.number)
        with pytest.raises(Exception, match="status 0x5"):
            pair.resume(fault)
    else:
        pair.resume(fault)
        with pytest.raises(Exception, match="status 0x5"):
            pair.resume(fault)
        findings = 1
    counters = pair.card.counters()["faults"]
    assert (counters["dropped"], counters["open"], counters["resumes_moot"]) == (1, 0, not destroyed)
    assert len(pair.card.findings()) == findings


def test_reset_conserves_faults(pair):
    """Mutation: forget open faults without counting them."""
    pair.entry(pair.keys[0], 0, 0)
    pair.send(wqe.RDMA_WRITE, (pair.keys[0], VA, 8), remote=(pair.keys[1], VA))
    pair.card.reset()
    counters = pair.card.counters()["faults"]
    assert (counters["raised"], counters["dropped"], counters["open"]) == (1, 1, 0)


def test_a_queue_destroyed_while_faulting_is_not_run_again(pair):
    """Mutation: take the QP off the list before its fault is dropped, which puts it back."""
    pair.entry(pair.keys[0], 0, 0)
    pair.send(wqe.RDMA_WRITE, (pair.keys[0], VA, 8), remote=(pair.keys[1], VA))
    pair.command("DESTROY_QP", qpn=pair.a.number)
    pair.tick(1)
    assert pair.done(0) is None and pair.card.findings() == []


def test_a_driver_that_never_maps_is_stopped(pair):
    """Mutation: resume for ever."""
    from harness.connectx.faults import faults

    pair.entry(pair.keys[0], 0, 0)
    pair.send(wqe.RDMA_WRITE, (pair.keys[0], VA, 8), remote=(pair.keys[1], VA))
    for count in range(faults.MAX_AGAIN):
        pair.seen_events = count % 64
        data = pair.memory.read(pair.events + 64 * pair.seen_events, 64)
        pair.uar_write(0x48, struct.pack(">I", pair.eqn << 24 | count + 1))
        pair.resume(eqe.PageFaultWqeEqe(data))
    assert pair.statuses(0) == [cqe.LOCAL_PROTECTION] and "fault-loop" in pair.kinds()
