"""Two QPs on one card, driven through their rings: what moves, what is refused, what waits, what faults."""

import random
import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.tests.unit.connectx.driver import Driver, layouts
from harness.wire import cqe, eqe, wqe

VA = 0x7000_0000
RC, UC, UD, XRC = 0, 1, 2, 3
RIGHTS = {"lr": 1, "lw": 1, "rr": 1, "rw": 1, "a": 1, "umr_en": 1}
RECEIVE = 16 << 3


class Pair(Driver):
    """A requester and a responder with a CQ each, a page fault EQ, and keys over four pages each."""

    def __init__(self, model="connectx-5", series="7.3", service=RC, scheme_memory=False, srq=False):
        super().__init__(model, series, start=False)
        if scheme_memory:
            self.choose_memory()
        self.start()
        self.eqn, self.events = self.create_eq(
            (eqe.PAGE_FAULT, eqe.SRQ_LIMIT, eqe.WQ_ACCESS_ERROR, eqe.WQ_INVALID_REQUEST, eqe.COMM_EST),
            log_size=6,
        )
        self.seen_events = 0
        self.cqs = [self.create_cq(self.eqn, log_size=6) for _ in range(2)]
        self.seen = [0, 0]
        self.srqn = self.create_srq() if srq else None
        self.ends = [self.end(service, cq[0], srq and index) for index, cq in enumerate(self.cqs)]
        self.a, self.b = self.ends
        self.to_rts_as(self.a, self.b)
        self.to_rts_as(self.b, self.a)
        self.keys, self.at = [], []
        for _ in range(2):
            at = self.pages(4)
            self.at.append(at)
            self.keys.append(self.region([at + 4096 * page | 3 for page in range(4)]))

    def choose_memory(self):
        page = self.command("QUERY_HCA_CAP", op_mod=5).bytes("capability")
        self.layouts["odp_cap"].view(page)["mem_page_fault"] = 1
        request = self.request("SET_HCA_CAP", op_mod=2 << 1)
        request.bytes("capability")[: len(page)] = page
        self.post(request.data, 16)
        self.ring()
        assert self.answer()[0] == 0

    def end(self, service, cqn, shared):
        fields = {"rq_type": 1, "srqn_rmpn_xrqn": self.srqn} if shared else {}
        return self.create_qp(cqn, st=service, log_sq=6, log_rq=0 if shared else 3, log_rq_stride=0, **fields)

    def create_srq(self):
        self.srq_at, self.srq_record = self.page(), self.page()
        for index in range(8):
            self.memory.write(self.srq_at + 64 * index, struct.pack(">HH12x", 0, (index + 1) % 8))
        extra = self.pas(self.srq_at, 1)
        return self.command(
            "CREATE_RMP",
            extra=extra,
            ctx__wq__log_wq_stride=6,
            ctx__wq__log_wq_sz=3,
            ctx__wq__dbr_addr=self.srq_record,
            ctx__wq__pd=self.pd,
        )["rmpn"]

    def to_rts_as(self, qp, peer):
        access = {"qpc__rre": 1, "qpc__rwe": 1, "qpc__rae": 1}
        self.command("RST2INIT_QP", qpn=qp.number, qpc__q_key=0x11, **access)
        self.command("INIT2RTR_QP", qpn=qp.number, qpc__remote_qpn=peer.number, qpc__min_rnr_nak=12)
        self.command(
            "RTR2RTS_QP",
            qpn=qp.number,
            qpc__retry_count=2,
            qpc__rnr_retry=2,
            qpc__primary_address_path__ack_timeout=8,
        )

    def region(self, entries, **fields):
        listed = struct.pack(f">{len(entries)}Q", *entries)
        values = {"access_mode_1_0": 1, "start_addr": VA, "len": 4096 * len(entries), "log_page_size": 12}
        return self.create_mkey(listed, pg_access=1, **{**RIGHTS, **values, **fields})

    def entry(self, key, page, value):
        """What UMR would do to one translation entry."""
        table = self.card.hca.judge.table("mkey")[key >> 8].table
        struct.pack_into(">Q", table, 8 * page, value)

    def receive(self, *segments, qp=None):
        """Post a receive: segments as (key, va, length)."""
        qp = qp or self.b
        count = getattr(qp, "received", 0)
        body = b"".join(bytes(wqe.Data.new(lkey=k, address=va, byte_count=size)) for k, va, size in segments)
        ring = qp.ring - (16 << 3)
        self.memory.write(ring + 16 * (count % 8), body)
        qp.received = count + 1
        self.memory.write(qp.record, struct.pack(">I", qp.received))

    def shared_receive(self, index, key, va, size, posted):
        data = bytes(wqe.Data.new(lkey=key, address=va, byte_count=size))
        end = bytes(wqe.Data.new(lkey=0x100))
        self.memory.write(self.srq_at + 64 * index + 16, data + end)
        self.memory.write(self.srq_record, struct.pack(">I", posted))

    def send(self, opcode, *segments, remote=None, atomic=None, qp=None, vector=b"", **more):
        """Post a send: segments as (key, va, length) or bytes for inline data."""
        body = bytes(vector)
        if remote is not None:
            body += bytes(wqe.RemoteAddress.new(rkey=remote[0], address=remote[1]))
        if atomic is not None:
            body += bytes(wqe.Atomic.new(swap_add=atomic[0], compare=atomic[1]))
        for segment in segments:
            if isinstance(segment, bytes):
                head = struct.pack(">I", 1 << 31 | len(segment))
                body += (head + segment).ljust((len(segment) + 19) // 16 * 16, b"\0")
            else:
                key, va, size = segment
                body += bytes(wqe.Data.new(lkey=key, address=va, byte_count=size))
        (qp or self.a).post(opcode, body, **more)

    def done(self, end):
        """The next completion of an end: (opcode, syndrome or 0, entry); None when there is none."""
        cqn, ring, record = self.cqs[end]
        at = ring + 64 * (self.seen[end] % 64)
        entry = cqe.Cqe(self.memory.read(at, 64))
        if entry.owner != self.seen[end] >> 6 & 1 or entry.opcode == cqe.INVALID:
            return None
        self.seen[end] += 1
        self.memory.write(record, struct.pack(">I", self.seen[end]))
        failed = entry.opcode in (cqe.REQUESTER_ERROR, cqe.RESPONDER_ERROR)
        return entry.opcode, cqe.ErrorCqe(entry.data).syndrome if failed else 0, entry

    def statuses(self, end):
        found = []
        while (one := self.done(end)) is not None:
            found.append(one[1])
        return found

    def event(self, kind=eqe.Eqe):
        """The next event; completions are not armed here."""
        data = self.memory.read(self.events + 64 * (self.seen_events % 64), 64)
        if data[63] & 1 != self.seen_events >> 6 & 1:
            return None
        self.seen_events += 1
        return kind(data)

    def fault(self):
        """The next page fault."""
        while (event := self.event()) is not None:
            if event.type == eqe.PAGE_FAULT:
                forms = {0: eqe.PageFaultWqeEqe, 1: eqe.PageFaultRdmaEqe, 2: eqe.PageFaultMemoryEqe}
                return forms[event.sub_type](bytes(event))
        return None

    def resume(self, fault, error=0):
        if isinstance(fault, eqe.PageFaultMemoryEqe):
            prefix = "page_fault_info__mem_page_fault_info__"
            fields = {
                "error": error,
                "fault_token_47_32": fault.token_high,
                "fault_token_31_0": fault.token_low,
            }
        else:
            prefix = "page_fault_info__trans_page_fault_info__"
            wq = fault.wq if isinstance(fault, eqe.PageFaultWqeEqe) else fault.token
            fields = {
                "error": error,
                "page_fault_type": fault.pf_type,
                "wq_number": wq,
                "fault_token": fault.token,
            }
        if not self.layouts["page_fault_resume_in"].has("page_fault_info"):
            prefix = ""
            fields["token"] = fields.pop("fault_token")
        self.command("PAGE_FAULT_RESUME", **{prefix + name: value for name, value in fields.items()})

    def tick(self, seconds):
        self.now += seconds
        self.card.tick()


PATTERN = bytes(range(256)) * 64


@pytest.fixture
def pair():
    made = Pair()
    made.memory.write(made.at[0], PATTERN)
    return made


def test_a_message_is_scattered_as_posted(pair):
    """Mutation: skip a segment's offset in work.rest_of."""
    pair.receive((pair.keys[1], VA + 5, 100))
    pair.send(wqe.SEND_IMM, (pair.keys[0], VA + 3, 30), (pair.keys[0], VA + 4090, 50), general_id=0xABCD)
    opcode, _, entry = pair.done(1)
    assert (opcode, entry.byte_count, entry.immediate) == (cqe.RECEIVE_SEND_IMM, 80, 0xABCD)
    assert (entry.srqn_uidx, entry.qpn, entry.wqe_counter) == (0xFFFFFF, pair.b.number, 0)
    assert pair.memory.read(pair.at[1] + 5, 80) == PATTERN[3:33] + PATTERN[4090:4140]
    assert pair.done(0)[:2] == (cqe.REQUESTER, 0)
    assert pair.card.findings() == []


def test_inline_data_and_writes(pair):
    """Mutation: forget the padding behind inline data."""
    pair.send(wqe.RDMA_WRITE, b"inline!", (pair.keys[0], VA, 9), remote=(pair.keys[1], VA + 4093))
    assert pair.memory.read(pair.at[1] + 4093, 16) == b"inline!" + PATTERN[:9]
    pair.receive()
    pair.send(wqe.RDMA_WRITE_IMM, (pair.keys[0], VA, 4), remote=(pair.keys[1], VA), general_id=7)
    opcode, _, entry = pair.done(1)
    assert (opcode, entry.byte_count, entry.immediate) == (cqe.RECEIVE_WRITE_IMM, 4, 7)


def test_a_read_comes_back_in_pieces(pair):
    """Mutation: exchange source and sink of a read."""
    pair.memory.write(pair.at[1], PATTERN[::-1])
    pair.send(
        wqe.RDMA_READ,
        (pair.keys[0], VA, 10),
        (pair.keys[0], VA + 8192, 5000),
        remote=(pair.keys[1], VA + 100),
    )
    assert pair.memory.read(pair.at[0], 10) == PATTERN[::-1][100:110]
    assert pair.memory.read(pair.at[0] + 8192, 5000) == PATTERN[::-1][110:5110]
    assert pair.done(0)[2].byte_count == 5010


@pytest.mark.parametrize(
    ("opcode", "operands", "after"),
    [(wqe.ATOMIC_FA, (5, 0), 12), (wqe.ATOMIC_CS, (99, 7), 99), (wqe.ATOMIC_CS, (99, 8), 7)],
)
def test_atomics(pair, opcode, operands, after):
    """Mutation: store big endian."""
    pair.memory.write(pair.at[1] + 8, struct.pack("<Q", 7))
    pair.send(opcode, (pair.keys[0], VA, 8), remote=(pair.keys[1], VA + 8), atomic=operands)
    assert pair.done(0)[:2] == (cqe.REQUESTER, 0)
    assert struct.unpack("<Q", pair.memory.read(pair.at[0], 8)) == (7,)
    assert struct.unpack("<Q", pair.memory.read(pair.at[1] + 8, 8)) == (after,)


def test_many_work_requests_go_around_the_rings(pair):
    """Mutation: count WQEs instead of blocks in Requester._finish."""
    for number in range(200):
        pair.receive((pair.keys[1], VA, 4096))
        body = struct.pack(">I", number) * (1 + number % 20)
        pair.send(wqe.SEND, body)
        assert pair.memory.read(pair.at[1], len(body)) == body
        assert pair.done(1)[2].byte_count == len(body) and pair.done(0)[1] == 0
    assert pair.card.findings() == []


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
    """Mutation: skip Runner._permitted."""
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


def test_a_receive_on_a_bad_key_tells_both_ends(pair):
    pair.receive((pair.keys[1] ^ 1, VA, 64))
    pair.send(wqe.SEND, (pair.keys[0], VA, 11))
    assert pair.statuses(0) == [cqe.REMOTE_OPERATION] and pair.statuses(1) == [cqe.LOCAL_PROTECTION]


def test_receiver_not_ready_is_tried_again_then_given_up(pair):
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


def test_a_peer_that_is_gone_is_tried_again_then_given_up(pair):
    """Mutation: complete as if it had arrived."""
    pair.command("2RST_QP", "qp_2rst", qpn=pair.b.number)
    pair.send(wqe.RDMA_WRITE, b"x", remote=(pair.keys[1], VA))
    assert pair.done(0) is None
    for _ in range(3):
        pair.tick(0.01)
    assert pair.statuses(0) == [cqe.RETRY_EXCEEDED]


def test_datagrams_need_the_key_and_land_behind_the_header():
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


def test_a_shared_queue_gives_in_order_and_tells_its_limit():
    """Mutation: compare the limit with what was posted, not with what is left."""
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


def test_a_datagram_too_long_leaves_the_receive_posted():
    """Mutation: do not take the receive back."""
    pair = Pair(service=UD)
    pair.receive((pair.keys[1], VA, 48))
    datagram(pair, b"nine byte")
    assert pair.done(1) is None
    datagram(pair, b"datagram")
    assert pair.done(1)[2].byte_count == 48
    assert pair.memory.read(pair.at[1] + 40, 8) == b"datagram"


def test_a_datagram_too_long_for_a_shared_receive_is_told():
    """It cannot be given back there. Mutation: give it back all the same."""
    pair = Pair(service=UD, srq=True)
    pair.shared_receive(0, pair.keys[1], VA, 48, posted=1)
    datagram(pair, b"nine byte")
    opcode, syndrome, entry = pair.done(1)
    assert (opcode, syndrome, entry.wqe_counter) == (cqe.RESPONDER_ERROR, cqe.REMOTE_INVALID_REQUEST, 0)


# -- page faults


def test_a_send_from_an_absent_page_goes_on_where_it_stopped(pair):
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


def test_a_resume_before_the_page_is_there_faults_again(pair):
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
def test_the_far_side_of_an_rdma_operation(pair, opcode, page, kind):
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
    wanted = (eqe.FAULT_RMP, pair.srqn) if shared else (eqe.FAULT_RESPONDER, pair.b.number)
    assert (fault.pf_type, fault.wq) == wanted
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
    ("side", "near", "far"),
    [(0, [cqe.LOCAL_PROTECTION], []), (1, [cqe.REMOTE_OPERATION], [cqe.LOCAL_PROTECTION])],
)
def test_a_resume_with_error_breaks_the_queue(pair, side, near, far):
    """Mutation: take the error bit for a plain resume."""
    pair.entry(pair.keys[side], 0, 0)
    pair.receive((pair.keys[1], VA, 64))
    pair.send(wqe.SEND, (pair.keys[0], VA, 8))
    pair.resume(pair.fault(), error=1)
    assert pair.statuses(0) == near and pair.statuses(1) == far
    assert pair.card.counters()["faults"]["failed"] == 1


def test_a_resume_of_nothing_or_of_another_type_is_found(pair):
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
    """Mutation: give the address where it stopped instead of its page."""
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
    """No token: a resume with another flag is nobody's. Mutation: put a token into the event."""
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


def test_a_reset_balances_the_accounts(pair):
    """Mutation: forget open faults without counting them."""
    pair.entry(pair.keys[0], 0, 0)
    pair.send(wqe.RDMA_WRITE, (pair.keys[0], VA, 8), remote=(pair.keys[1], VA))
    pair.card.reset()
    counters = pair.card.counters()["faults"]
    assert (counters["raised"], counters["dropped"], counters["open"]) == (1, 1, 0)


def test_a_queue_destroyed_at_work_is_not_run_again(pair):
    """Mutation: take the QP off the list before its fault is dropped, which puts it back."""
    pair.entry(pair.keys[0], 0, 0)
    pair.send(wqe.RDMA_WRITE, (pair.keys[0], VA, 8), remote=(pair.keys[1], VA))
    pair.command("DESTROY_QP", qpn=pair.a.number)
    pair.tick(1)
    assert pair.done(0) is None and pair.card.findings() == []


def test_a_driver_that_never_maps_is_stopped(pair):
    """Mutation: resume for ever."""
    from harness.connectx import faults

    pair.entry(pair.keys[0], 0, 0)
    pair.send(wqe.RDMA_WRITE, (pair.keys[0], VA, 8), remote=(pair.keys[1], VA))
    for count in range(faults.AGAIN_MOST):
        pair.seen_events = count % 64
        data = pair.memory.read(pair.events + 64 * pair.seen_events, 64)
        pair.uar_write(0x48, struct.pack(">I", pair.eqn << 24 | count + 1))
        pair.resume(eqe.PageFaultWqeEqe(data))
    assert pair.statuses(0) == [cqe.LOCAL_PROTECTION] and "fault-loop" in pair.kinds()


def test_rings_outside_memory_break_one_queue_only(pair):
    """Mutation: catch DmaError in bar_write only; the next QP in line is not run."""
    qp = pair.card.hca.judge.table("qp")[pair.a.number]
    qp.ring.pages = (0xDEAD_0000,) * len(qp.ring.pages)
    pair.send(wqe.NOP)
    assert pair.kinds() == ["bad-address"]
    pair.send(wqe.NOP, qp=pair.b)
    assert pair.done(1)[1] == 0


def test_layouts_of_every_series_have_what_the_data_path_needs():
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
def test_nonsense_in_work_queues_breaks_a_queue_not_the_card(wqes, producer, service, receives):
    """Impossible sizes, keys that never were, counters far ahead. Mutation: let parse() raise ValueError."""
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


def test_a_blueflame_write_rings_once(pair):
    """A WQE of 64 bytes in writes of 8. Mutation: take each part for a doorbell of its own."""
    pair.a.post(wqe.NOP, ring=False)
    pair.memory.write(pair.a.record + 4, struct.pack(">I", 1))
    for part in range(0, 64, 8):
        data = struct.pack(">II", wqe.NOP, pair.a.number << 8 | 1) if not part else b"\xff" * 8
        pair.uar_write(0xA00 + part, data)
    assert pair.done(0)[1] == 0 and pair.card.findings() == []


def settle(pair, draw, pages):
    """Resolve faults until there are none; each time the driver maps some pages, rarely nothing.

    What an operation has committed never becomes less.
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
def test_random_work_over_pages_that_come_and_go(seed, memory_scheme):
    """Data, order and accounts against a model of a few lines, with pages absent at random on both sides.

    Mutation: set `done` to what moved last instead of adding it up.
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
        size, near, far = draw.randrange(1, 8000), draw.randrange(8000), draw.randrange(8000)
        opcode = draw.choice((wqe.SEND, wqe.RDMA_WRITE, wqe.RDMA_READ))
        cut = draw.randrange(size)
        segments = [(pair.keys[0], VA + near, cut), (pair.keys[0], VA + near + cut, size - cut)]
        segments = [segment for segment in segments if segment[2]]
        if opcode == wqe.SEND:
            pair.receive((pair.keys[1], VA + far, size))
        remote = None if opcode == wqe.SEND else (pair.keys[1], VA + far)
        pair.send(opcode, *segments, remote=remote)
        if opcode == wqe.RDMA_READ:
            want[0][near : near + size] = want[1][far : far + size]
        else:
            want[1][far : far + size] = want[0][near : near + size]
        settle(pair, draw, pages)
        assert pair.done(0)[1] == 0
        if opcode == wqe.SEND:
            assert pair.done(1)[2].byte_count == size
        assert [pair.memory.read(pair.at[end], 16384) for end in range(2)] == want
    counters = pair.card.counters()["faults"]
    assert counters["raised"] == counters["resumed"] > 20 and counters["open"] == 0
    assert pair.card.findings() == []
