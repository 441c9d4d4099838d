"""A small driver for tests of the card: guest memory, command slots, rings, all in this process."""

import functools
import gzip
import json
import os
import struct
from pathlib import Path

import pytest

from harness.connectx.firmware import Card
from harness.connectx.transport.memory import Memory
from harness.wire import ifc, wqe

DATA = Path(__file__).parents[2] / "data"
SERIES = ("6.1", "6.12", "7.2", "7.3")
BASE = 0x10_0000
SIZE = 8 << 20
PAGE = 4096
UAR = 0x20, 0x40, 0x48, 0x800


@functools.cache
def layouts(series="7.3"):
    """Return the layouts of a kernel series, from its headers."""
    with gzip.open(DATA / f"ifc-{series}.json.gz") as file:
        return ifc.Layouts(*json.load(file))


class CommandFailed(Exception):
    def __init__(self, status, syndrome):
        super().__init__(f"status {status:#x}")
        self.status, self.syndrome = status, syndrome


def fails(status, run, *arguments, **fields):
    """Check that a command fails with that status."""
    with pytest.raises(CommandFailed) as caught:
        run(*arguments, **fields)
    assert caught.value.status == status


class Driver:
    """A driver that sends commands as mlx5_core does: one slot, chained mailboxes, by polling."""

    def __init__(self, model="connectx-5", series="7.3", start=True):
        self.layouts = layouts(series)
        self.memory = Memory()
        file = os.memfd_create("guest")
        os.ftruncate(file, SIZE)
        self.memory.grant(BASE, SIZE, 3, file)
        os.close(file)
        self.fired = []
        self.notes = []
        self.now = 1.0
        self.card = Card(model, self.layouts, self.memory, self, self.notes.append)
        self.card.clock = lambda: self.now
        self.next, self.lent = BASE, 0x4000_0000
        self.queue = self.page()
        self.card.bar_write(0, 0x10, struct.pack(">I", self.queue >> 32))
        self.card.bar_write(0, 0x14, struct.pack(">I", self.queue & 0xFFFFFFFF))
        if start:
            self.start()

    def fire(self, vector):
        self.fired.append(vector)

    def pages(self, count):
        at = self.next
        self.next += count * PAGE
        self.memory.write(at, bytes(count * PAGE))
        return at

    def page(self):
        return self.pages(1)

    # -- commands

    def request(self, name, layout="", extra=b"", **fields):
        layout = layout or name.lower()
        request = self.layouts[f"{layout}_in"].new(len(extra))
        request["opcode"] = self.layouts.value(f"MLX5_CMD_OP_{name}")
        for field, value in fields.items():
            request[field.replace("__", ".")] = value
        if extra:
            request.data[-len(extra) :] = extra
        return request

    def chain(self, length, token, data=b""):
        """Fill mailboxes for `length` bytes with `data`; return the address of the first."""
        pointer = 0
        for number in reversed(range((length + 511) // 512)):
            at = self.page()
            part = data[512 * number : 512 * number + 512]
            self.memory.write(
                at, part.ljust(560, b"\0") + struct.pack(">QIBBBB", pointer, number, 0, token, 0, 0)
            )
            pointer = at
        return pointer

    def post(self, request, out_length, slot=0, token=7):
        """Fill a slot; `ring` makes the card run it."""
        data = bytes(request)
        head = struct.pack(">B3xIQ", 7, len(data), self.chain(len(data) - 16, token, data[16:]))
        head += data[:16].ljust(16, b"\0") + bytes(16)
        head += struct.pack(">QIBBBB", self.chain(out_length - 16, token), out_length, token, 0, 0, 1)
        self.memory.write(self.queue + 64 * slot, head)

    def ring(self, bits=1):
        self.card.bar_write(0, 0x18, struct.pack(">I", bits))

    def slot(self, number=0):
        return self.memory.read(self.queue + 64 * number, 64)

    def answer(self, number=0):
        """Return the reply in a slot that the card has returned."""
        slot = self.slot(number)
        assert not slot[63] & 1, "the card kept the slot"
        assert slot[63] == 0, f"delivery status {slot[63] >> 1:#x}"
        pointer, length = struct.unpack_from(">QI", slot, 48)
        reply = slot[32:48]
        while len(reply) < length:
            box = self.memory.read(pointer, 576)
            reply += box[:512]
            (pointer,) = struct.unpack_from(">Q", box, 560)
        return reply[:length]

    def command(self, name, layout="", extra=b"", out_extra=0, **fields):
        """Run a command; return its reply as a view, CommandFailed for a bad status."""
        layout = layout or name.lower()
        mark = self.next
        reply_layout = self.layouts[f"{layout}_out"]
        self.post(self.request(name, layout, extra, **fields).data, reply_layout.size + out_extra)
        self.ring()
        reply = self.answer()
        self.next = mark
        status, syndrome = struct.unpack_from(">B3xI", reply)
        if status:
            raise CommandFailed(status, syndrome)
        return reply_layout.view(bytearray(reply))

    # -- the usual objects

    def start(self):
        """Enable, boot and init pages, INIT_HCA, a UAR page, a PD."""
        self.command("ENABLE_HCA")
        for stage in (1, 2):
            self.give(self.command("QUERY_PAGES", op_mod=stage)["num_pages"])
        self.command("INIT_HCA")
        self.uar = self.command("ALLOC_UAR")["uar"]
        self.pd = self.command("ALLOC_PD")["pd"]

    def give(self, count):
        pages = range(self.lent, self.lent + count * PAGE, PAGE)
        self.lent += count * PAGE
        extra = struct.pack(f">{count}Q", *pages)
        self.command("MANAGE_PAGES", op_mod=1, input_num_entries=count, extra=extra)

    def stop(self):
        self.command("DEALLOC_PD", pd=self.pd)
        self.command("DEALLOC_UAR", uar=self.uar)
        self.command("TEARDOWN_HCA")
        for _ in range(8):
            self.command("MANAGE_PAGES", op_mod=2, input_num_entries=512, out_extra=8 * 512)
        self.command("DISABLE_HCA")

    def pas(self, address, count):
        return struct.pack(f">{count}Q", *range(address, address + count * PAGE, PAGE))

    def create_eq(self, events=(), log_size=4, vector=0):
        at = self.page()
        for index in range(1 << log_size):  # as the driver does: owned by the card
            self.memory.write(at + 64 * index + 63, b"\1")
        mask = sum(1 << event for event in events)
        reply = self.command(
            "CREATE_EQ",
            extra=self.pas(at, 1),
            eq_context_entry__log_eq_size=log_size,
            eq_context_entry__uar_page=self.uar,
            eq_context_entry__intr=vector,
            **{"event_bitmask[0]": mask},
        )
        return reply["eq_number"], at

    def create_cq(self, eqn, log_size=4):
        at, record = self.page(), self.page()
        for index in range(1 << log_size):
            self.memory.write(at + 64 * index + 63, b"\xf1")
        eq_field = "c_eqn_or_apu_element" if self.layouts["cqc"].has("c_eqn_or_apu_element") else "c_eqn"
        reply = self.command(
            "CREATE_CQ",
            extra=self.pas(at, 1),
            cq_context__log_cq_size=log_size,
            cq_context__uar_page=self.uar,
            cq_context__dbr_addr=record,
            **{f"cq_context__{eq_field}": eqn},
        )
        return reply["cqn"], at, record

    def create_qp(self, cqn, st=12, log_sq=4, log_rq=0, **fields):
        """Create a QP with a send queue of 2^log_sq blocks; without `log_rq` it has no receive queue."""
        count = ((1 << log_sq) * 64 + (16 << log_rq if log_rq else 0) + PAGE - 1) // PAGE
        at, record = self.pages(count), self.page()
        reply = self.command(
            "CREATE_QP",
            extra=self.pas(at, count),
            qpc__st=st,
            qpc__pd=fields.pop("pd", self.pd),
            qpc__uar_page=self.uar,
            qpc__cqn_snd=cqn,
            qpc__cqn_rcv=cqn,
            qpc__log_sq_size=log_sq,
            qpc__log_rq_size=log_rq,
            qpc__rq_type=fields.pop("rq_type", 0 if log_rq else 3),
            qpc__dbr_addr=record,
            qpc__user_index=0xFFFFFF,
            **{f"qpc__{name}": value for name, value in fields.items()},
        )
        return Qp(self, reply["qpn"], at + (16 << log_rq if log_rq else 0), record, 1 << log_sq)

    def to_rts(self, qpn, remote=0):
        self.command("RST2INIT_QP", qpn=qpn)
        self.command("INIT2RTR_QP", qpn=qpn, qpc__remote_qpn=remote)
        self.command("RTR2RTS_QP", qpn=qpn)

    def create_mkey(self, listed=b"", **fields):
        octowords = (len(listed) + 15) // 16
        reply = self.command(
            "CREATE_MKEY",
            extra=listed.ljust(octowords * 16, b"\0"),
            translations_octword_actual_size=octowords,
            pg_access=fields.pop("pg_access", 0),
            memory_key_mkey_entry__qpn=0xFFFFFF,
            memory_key_mkey_entry__pd=fields.pop("pd", self.pd),
            memory_key_mkey_entry__translations_octword_size=fields.pop("octowords", octowords),
            memory_key_mkey_entry__mkey_7_0=fields.pop("variant", 0x55),
            **{f"memory_key_mkey_entry__{name}": value for name, value in fields.items()},
        )
        return reply["mkey_index"] << 8 | 0x55

    def uar_write(self, offset, data):
        self.card.bar_write(0, self.uar * PAGE + offset, data)

    def arm_eq(self, eqn, consumer=0):
        self.uar_write(0x40, struct.pack(">I", eqn << 24 | consumer))

    def arm_cq(self, cqn, consumer=0, solicited=False):
        self.uar_write(0x20, struct.pack(">II", solicited << 24 | consumer, cqn))

    def kinds(self):
        return [finding["kind"] for finding in self.card.findings()]


class Qp:
    """The driver's end of a send queue."""

    def __init__(self, driver, number, ring, record, blocks):
        self.driver, self.number, self.ring, self.record, self.blocks = driver, number, ring, record, blocks
        self.produced = 0

    def post(self, opcode, body=b"", completion=2, general_id=0, ring=True):
        size = 16 + len(body)
        control = wqe.Control.new(
            opcode=opcode,
            wqe_index=self.produced,
            qpn=self.number,
            ds=size // 16,
            completion=completion,
            general_id=general_id,
        )
        data = (bytes(control) + body).ljust((size + 63) // 64 * 64, b"\0")
        for part in range(0, len(data), 64):
            place = (self.produced + part // 64) % self.blocks
            self.driver.memory.write(self.ring + 64 * place, data[part : part + 64])
        self.produced += len(data) // 64
        if ring:
            self.doorbell(bytes(control)[:8])

    def doorbell(self, head):
        self.driver.memory.write(self.record + 4, struct.pack(">I", self.produced & 0xFFFF))
        self.driver.uar_write(0x800, head)

    def umr(
        self, key, flags, mask, listed=b"", offset=0, segment=None, pointer=None, octowords=None, **fields
    ):
        """Post a UMR WQE: inline list, or by `pointer` (lkey, address) for `octowords`."""
        control = wqe.UmrControl.new(
            flags=flags,
            xlt_octowords=octowords if octowords is not None else len(listed) // 16,
            offset_low=offset & 0xFFFF,
            offset_high=offset >> 16,
            mkey_mask=mask,
        )
        mkc = self.driver.layouts["mkc"].new()
        mkc["mkey_7_0"] = 0x55
        for name, value in fields.items():
            mkc[name] = value
        tail = listed if pointer is None else bytes(wqe.Data.new(lkey=pointer[0], address=pointer[1]))
        self.post(wqe.UMR, bytes(control) + bytes(mkc.data) + tail, general_id=key)
