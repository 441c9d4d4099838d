"""Two QPs on one card with keys over a few pages each, driven through their rings: for tests of the data path."""

import struct

from harness.tests.unit.connectx.driver import Driver
from harness.wire import cqe, eqe, wqe

VA = 0x7000_0000
RC, UC, UD, XRC = 0, 1, 2, 3
RIGHTS = {"lr": 1, "lw": 1, "rr": 1, "rw": 1, "a": 1, "umr_en": 1}
RECEIVE = 16 << 3
PATTERN = bytes(range(256)) * 64


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
        """Set one translation entry, as UMR would."""
        table = self.card.hca.device.objects.table("mkey")[key >> 8].table
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
        """Return the next completion of an end: (opcode, syndrome or 0, entry); None when there is none."""
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
        received = []
        while (one := self.done(end)) is not None:
            received.append(one[1])
        return received

    def event(self, kind=eqe.Eqe):
        """Return the next event; completions are not armed here."""
        data = self.memory.read(self.events + 64 * (self.seen_events % 64), 64)
        if data[63] & 1 != self.seen_events >> 6 & 1:
            return None
        self.seen_events += 1
        return kind(data)

    def fault(self):
        """Return the next page fault."""
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


def filled(model="connectx-5", scheme_memory=False):
    """Return an RC pair, its first region filled with PATTERN."""
    pair = Pair(model, scheme_memory=scheme_memory)
    pair.memory.write(pair.at[0], PATTERN)
    return pair


def write_absent(pair, page=0, size=8):
    """Post an RDMA write from local page `page`, which is absent."""
    pair.entry(pair.keys[0], page, 0)
    pair.send(wqe.RDMA_WRITE, (pair.keys[0], VA + 4096 * page, size), remote=(pair.keys[1], VA))


def resolve(pair, fault, page=0, end=0):
    """Make a page present and resume its fault."""
    pair.entry(pair.keys[end], page, pair.at[end] + 4096 * page | 3)
    pair.resume(fault)


def conserved(pair):
    """Check the equations that hold whatever rules do; return the counters of faults."""
    faults = pair.card.counters()["faults"]
    assert faults["raised"] == sum(faults[name] for name in ("resumed", "failed", "dropped", "open"))
    assert faults["injected"] == sum(faults[f"injected_{name}"] for name in ("resumed", "failed", "open"))
    return faults


def hits(pair):
    """Return how often each rule acted."""
    return [outcome["hits"] for outcome in pair.card.outcomes()]
