import struct

import pytest

from harness.connectx.objects.mkeys import (
    KLM,
    KSM,
    LOCAL_KEY,
    MTT,
    NULL_KEY,
    Refused,
    Span,
    User,
)
from harness.tests.unit.connectx.driver import Driver
from harness.wire import cqe

VA = 0x7000_0000
ALL = {"lr": 1, "lw": 1, "rr": 1, "rw": 1, "a": 1, "umr_en": 1}
NOT_FREE, FREE, OFFSET, INLINE = 0x20, 0x40, 0x10, 0x80
MASK_ENABLE = 0x203E20C3


class Rig(Driver):
    """With a QP for UMR and a look at its completions."""

    def __init__(self):
        super().__init__()
        eqn, _ = self.create_eq()
        self.cqn, self.completions, _ = self.create_cq(eqn, log_size=6)
        self.qp = self.create_qp(self.cqn, log_sq=6)
        self.to_rts(self.qp.number)
        self.seen = 0

    def status(self):
        """Syndrome of the next completion, 0 for a good one."""
        data = self.memory.read(self.completions + 64 * self.seen, 64)
        self.seen += 1
        entry = cqe.ErrorCqe(data)
        assert entry.owner == 0
        return entry.syndrome if entry.opcode == cqe.REQUESTER_ERROR else 0

    def access(self, key, va, length, need="lr", pd=None, qpn=0x40, reserved=True):
        user = User(pd or self.pd, qpn, reserved)
        return self.card.hca.keys.access(key, va, length, user, need, cqe.LOCAL_PROTECTION)


@pytest.fixture
def rig():
    return Rig()


def mtts(*entries):
    return struct.pack(f">{len(entries)}Q", *entries)


def mtt_key(rig, *entries, pg_access=1, **fields):
    values = {
        **ALL,
        "access_mode_1_0": MTT,
        "start_addr": VA,
        "len": 4096 * len(entries),
        "log_page_size": 12,
    }
    return rig.create_mkey(mtts(*entries), pg_access=pg_access, **{**values, **fields})


def test_mtt_pages_are_joined_where_they_touch(rig):
    """Mutation: index by va instead of va - start."""
    key = mtt_key(rig, 0x5000 | 3, 0x6000 | 3, 0x9000 | 3)
    spans, absent = rig.access(key, VA + 0x800, 0x2000)
    assert spans == [Span(0x5800, 0x1800), Span(0x9000, 0x800)] and absent is None


def test_a_start_inside_a_page_counts_from_the_page(rig):
    """Mutation: forget start modulo page."""
    key = mtt_key(rig, 0x5000 | 3, 0x8000 | 3, start_addr=VA + 0x100, len=0x1F00)
    assert rig.access(key, VA + 0x100, 0x1000)[0] == [Span(0x5100, 0xF00), Span(0x8000, 0x100)]


@pytest.mark.parametrize(
    ("bits", "need", "there"), [(0, "lr", 0), (1, "lr", 1), (1, "lw", 0), (1, "a", 0), (3, "rw", 1)]
)
def test_access_bits_say_whether_a_page_is_there(rig, bits, need, there):
    """A write to a read-only page is a fault too. Mutation: ask for the read bit only."""
    key = mtt_key(rig, 0x5000 | 3, 0x6000 | bits)
    spans, absent = rig.access(key, VA, 0x2000, need)
    assert (absent is None) == bool(there)
    if absent:
        assert (absent.va, absent.length, absent.key.value) == (VA + 0x1000, 0x1000, key)
        assert spans == [Span(0x5000, 0x1000)]


def test_without_pg_access_every_page_is_there(rig):
    """Mutation: leave the entries of CREATE_MKEY as they are."""
    assert rig.access(mtt_key(rig, 0x5000, pg_access=0), VA, 4096, "lw")[1] is None


@pytest.mark.parametrize(
    ("va", "length", "need", "change", "why"),
    [
        (VA - 1, 1, "lr", {}, "outside"),
        (VA + 4095, 2, "lr", {}, "outside"),
        (VA, 1, "lw", {"lw": 0}, "lacks lw"),
        (VA, 1, "lr", {"free": 1}, "is free"),
    ],
)
def test_what_a_key_forbids_is_refused_before_any_page(rig, va, length, need, change, why):
    """Mutation: check the range after the walk."""
    key = mtt_key(rig, 0, **change)
    with pytest.raises(Refused, match=why) as caught:
        rig.access(key, va, length, need)
    assert caught.value.syndrome == cqe.LOCAL_PROTECTION


def test_variant_and_pd_must_agree(rig):
    """Mutation: compare the index only."""
    key = mtt_key(rig, 0x5000 | 3)
    with pytest.raises(Refused, match="variant"):
        rig.access(key ^ 1, VA, 1)
    with pytest.raises(Refused, match="PD"):
        rig.access(key, VA, 1, pd=rig.command("ALLOC_PD")["pd"])


def test_keys_of_keys(rig):
    """KLM entries have lengths, KSM entries a common size. Mutation: use the outer va in the inner key."""
    inner = mtt_key(rig, 0x5000 | 3, 0x6000 | 3)
    entries = struct.pack(">IIQ", 16, inner, VA + 8) + struct.pack(">IIQ", 0x1000, inner, VA + 0x800)
    klm = rig.create_mkey(entries, **ALL, access_mode_1_0=KLM, start_addr=0x100, len=0x1010)
    assert rig.access(klm, 0x104, 0x20)[0] == [Span(0x500C, 12), Span(0x5800, 0x14)]
    ksm = rig.create_mkey(
        struct.pack(">IIQ", 0, inner, VA) + struct.pack(">IIQ", 0, NULL_KEY, 0),
        **ALL,
        access_mode_1_0=KSM,
        length64=1,
        log_page_size=13,
    )
    assert rig.access(ksm, 0x1FF0, 0x10)[0] == [Span(0x6FF0, 0x10)]
    spans, absent = rig.access(ksm, 0x1FF0, 0x20)
    assert spans == [Span(0x6FF0, 0x10)] and (absent.va, absent.length, absent.key.value) == (
        0x2000,
        0x10,
        ksm,
    )


def test_a_key_reaches_keys_of_its_own_pd_only(rig):
    """Mutation: check the outer key's PD only in Keys._walk_keys."""
    inner = mtt_key(rig, 0x5000 | 3, pd=rig.command("ALLOC_PD")["pd"])
    entry = struct.pack(">IIQ", 4096, inner, VA)
    key = rig.create_mkey(entry, **ALL, access_mode_1_0=KLM, start_addr=0, len=4096)
    with pytest.raises(Refused, match="another PD"):
        rig.access(key, 0, 8)


def test_an_old_value_of_a_peer_does_not_free_the_key(rig):
    """A window is bound anew, then its old value is invalidated. Mutation: compare the index only in
    Keys.invalidate.
    """
    key = mtt_key(rig, 0x5000 | 3, en_rinval=1)
    for value, free in ((key ^ 1, 0), (key, 1)):
        rig.card.hca.keys.invalidate(value, rig.pd)
        assert rig.card.hca.device.objects.table("mkey")[key >> 8].fields["free"] == free


@pytest.mark.parametrize(("change", "status", "free"), [(1, cqe.MW_BIND, 0), (0, 0, 1)])
def test_an_old_value_does_not_free_the_key(rig, change, status, free):
    """As rdma-core invalidates a window, which sets the variant to 0. Mutation: compare the index only in umr.apply."""
    key = mtt_key(rig, 0x5000 | 3)
    rig.qp.umr(key ^ change, INLINE, 1 << 29 | 1 << 13, free=1, mkey_7_0=0)
    assert (
        rig.status() == status and rig.card.hca.device.objects.table("mkey")[key >> 8].fields["free"] == free
    )


def test_keys_that_refer_to_themselves_end(rig):
    """Mutation: drop the depth limit; the card recurses until it dies."""
    key = rig.create_mkey(bytes(16), **ALL, access_mode_1_0=KLM, start_addr=0, len=4096)
    rig.card.hca.device.objects.table("mkey")[key >> 8].table[:] = struct.pack(">IIQ", 4096, key, 0)
    with pytest.raises(Refused, match="without end"):
        rig.access(key, 0, 8)


def test_reserved_keys(rig):
    assert rig.access(LOCAL_KEY, 0x1234, 8)[0] == [Span(0x1234, 8)]
    assert rig.access(NULL_KEY, 0x1234, 8)[0] == [Span(None, 8)]


@pytest.mark.parametrize(("need", "reserved"), [("lr", False), ("rr", True), ("rw", True), ("a", True)])
def test_the_local_key_is_for_local_accesses_of_the_kernels_queues(rig, need, reserved):
    """It is all of the machine's memory. Mutations: leave `need` out; leave `rlky` out."""
    with pytest.raises(Refused, match="reserved"):
        rig.access(LOCAL_KEY, 0x1234, 8, need, reserved=reserved)


def test_a_key_bound_to_a_queue_is_for_that_queue(rig):
    """Mutation: leave `qpn` out."""
    key = mtt_key(rig, 0x5000 | 3)
    rig.card.hca.device.objects.table("mkey")[key >> 8].fields["qpn"] = 0x41
    assert rig.access(key, VA, 1, qpn=0x41)[0]
    with pytest.raises(Refused, match="bound to QP 0x41"):
        rig.access(key, VA, 1, qpn=0x40)


def test_umr_enables_a_pool_key_by_list(rig):
    """As mlx5_ib does: NOT_FREE is checked of a free key. Mutation: ignore the translation offset."""
    key = rig.create_mkey(free=1, umr_en=1, access_mode_1_0=MTT, octowords=8)
    at = rig.page()
    rig.memory.write(at, mtts(*[0x5000 + 0x1000 * i | 3 for i in range(8)]))
    fields = {**ALL, "pd": rig.pd, "start_addr": VA, "len": 16 * 4096, "log_page_size": 12}
    rig.qp.umr(key, NOT_FREE | OFFSET, MASK_ENABLE, pointer=(LOCAL_KEY, at), octowords=4, offset=4, **fields)
    assert rig.status() == 0
    assert rig.access(key, VA + 8 * 4096, 4096)[0] == [Span(0x5000, 4096)]
    assert rig.access(key, VA, 4096)[1] is not None
    rig.qp.umr(key, FREE | OFFSET, 0, listed=mtts(0xA000 | 1, 0xB000 | 3) + bytes(48), octowords=1)
    rig.qp.umr(key, FREE | OFFSET | INLINE, 0, listed=mtts(0xA000 | 1, 0xB000 | 3) + bytes(48))
    assert [rig.status(), rig.status()] != [0, 0]


def test_umr_zaps_and_revokes(rig):
    """Zeros make pages absent, FREE makes the key unusable. Mutation: skip FREE in umr.MASK_FIELDS."""
    key = mtt_key(rig, *[0x5000 | 3] * 8)
    rig.qp.umr(key, FREE | OFFSET | INLINE, 0, listed=bytes(64))
    assert rig.status() == 0 and rig.access(key, VA, 1)[1] is not None
    rig.qp.umr(key, INLINE, 1 << 29 | 1 << 7, free=1, pd=rig.pd)
    assert rig.status() == 0
    with pytest.raises(Refused, match="free"):
        rig.access(key, VA, 1)


@pytest.mark.parametrize(("free", "flag"), [(1, FREE), (0, NOT_FREE)])
def test_umr_of_a_key_in_the_wrong_state_fails_and_breaks_the_queue(rig, free, flag):
    """Mutation: skip umr._check_state."""
    key = rig.create_mkey(bytes(64), **ALL, free=free, access_mode_1_0=MTT)
    rig.qp.umr(key, flag | INLINE, 0, listed=bytes(64))
    rig.qp.post(0, completion=0)
    assert rig.status() == cqe.MW_BIND
    assert rig.status() == cqe.FLUSH
    assert rig.kinds() == ["free-key-in-use"]
    assert rig.command("QUERY_QP", qpn=rig.qp.number)["qpc.state"] == 6


def test_umr_outside_its_key_is_found(rig):
    """Mutation: let a list grow the key, for ever."""
    key = rig.create_mkey(free=0, **ALL, access_mode_1_0=MTT, octowords=4)
    rig.qp.umr(key, FREE | OFFSET | INLINE, 0, listed=bytes(64), offset=2)
    assert rig.kinds() == ["bad-value"] and rig.status() == cqe.MW_BIND
    assert len(rig.card.hca.device.objects.table("mkey")[key >> 8].table) == 0


def test_query_mkey_gives_context_and_list(rig):
    key = mtt_key(rig, 0x5000 | 3, 0x6000 | 1)
    reply = rig.command("QUERY_MKEY", mkey_index=key >> 8, pg_access=1)
    entry = reply.at("memory_key_mkey_entry")
    assert (entry["start_addr"], entry["len"], entry["lw"], entry["pd"]) == (VA, 8192, 1, rig.pd)
    assert bytes(reply.bytes("bsf0_klm0_pas_mtt0_1")) == mtts(0x5000 | 3, 0x6000 | 1)


def test_a_repeat_block_interleaves(rig):
    """Mutation: advance by the length instead of the stride."""
    inner = mtt_key(rig, 0x5000 | 3)
    block = struct.pack(">IIIHH", 12, 0x400, 3, 0, 2)
    block += struct.pack(">HHIQ", 32, 8, inner, VA) + struct.pack(">HHIQ", 16, 4, inner, VA + 0x800)
    key = rig.create_mkey(block, **ALL, access_mode_1_0=KLM, start_addr=0, len=36)
    spans, absent = rig.access(key, 4, 24)
    assert absent is None
    assert spans == [Span(0x5004, 4), Span(0x5800, 4), Span(0x5020, 8), Span(0x5810, 4), Span(0x5040, 4)]
