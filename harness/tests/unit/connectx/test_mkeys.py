import struct

import pytest

from harness.connectx.objects.mkeys import (
    KLM,
    KSM,
    LOCAL_KEY,
    NULL_KEY,
    Refused,
    Span,
)
from harness.tests.unit.connectx.key_driver import ALL, VA, KeyDriver, mtts
from harness.wire import cqe


@pytest.fixture
def driver():
    return KeyDriver()


def test_mtt_pages_are_joined_where_they_touch(driver):
    """Mutation: index by va instead of va - start."""
    key = driver.mtt_key(0x5000 | 3, 0x6000 | 3, 0x9000 | 3)
    spans, absent = driver.access(key, VA + 0x800, 0x2000)
    assert spans == [Span(0x5800, 0x1800), Span(0x9000, 0x800)] and absent is None


def test_a_start_inside_a_page_counts_from_the_page(driver):
    """Mutation: forget start modulo page."""
    key = driver.mtt_key(0x5000 | 3, 0x8000 | 3, start_addr=VA + 0x100, len=0x1F00)
    assert driver.access(key, VA + 0x100, 0x1000)[0] == [Span(0x5100, 0xF00), Span(0x8000, 0x100)]


@pytest.mark.parametrize(
    ("bits", "need", "there"), [(0, "lr", 0), (1, "lr", 1), (1, "lw", 0), (1, "a", 0), (3, "rw", 1)]
)
def test_access_bits_decide_whether_a_page_is_present(driver, bits, need, there):
    """A write to a read-only page is a fault too. Mutation: check the read bit only."""
    key = driver.mtt_key(0x5000 | 3, 0x6000 | bits)
    spans, absent = driver.access(key, VA, 0x2000, need)
    assert (absent is None) == bool(there)
    if absent:
        assert (absent.va, absent.length, absent.key.value) == (VA + 0x1000, 0x1000, key)
        assert spans == [Span(0x5000, 0x1000)]


def test_without_pg_access_every_page_is_present(driver):
    """Mutation: leave the entries of CREATE_MKEY as they are."""
    assert driver.access(driver.mtt_key(0x5000, pg_access=0), VA, 4096, "lw")[1] is None


@pytest.mark.parametrize(
    ("va", "length", "need", "change", "why"),
    [
        (VA - 1, 1, "lr", {}, "outside"),
        (VA + 4095, 2, "lr", {}, "outside"),
        (VA, 1, "lw", {"lw": 0}, "lacks lw"),
        (VA, 1, "lr", {"free": 1}, "is free"),
    ],
)
def test_forbidden_accesses_are_refused_before_any_page(driver, va, length, need, change, why):
    """Mutation: check the range after the walk."""
    key = driver.mtt_key(0, **change)
    with pytest.raises(Refused, match=why) as caught:
        driver.access(key, va, length, need)
    assert caught.value.syndrome == cqe.LOCAL_PROTECTION


def test_variant_and_pd_must_agree(driver):
    """Mutation: compare the index only."""
    key = driver.mtt_key(0x5000 | 3)
    with pytest.raises(Refused, match="variant"):
        driver.access(key ^ 1, VA, 1)
    with pytest.raises(Refused, match="PD"):
        driver.access(key, VA, 1, pd=driver.command("ALLOC_PD")["pd"])


def test_keys_of_keys(driver):
    """KLM entries have lengths, KSM entries a common size. Mutation: use the outer va in the inner key."""
    inner = driver.mtt_key(0x5000 | 3, 0x6000 | 3)
    entries = struct.pack(">IIQ", 16, inner, VA + 8) + struct.pack(">IIQ", 0x1000, inner, VA + 0x800)
    klm = driver.create_mkey(entries, **ALL, access_mode_1_0=KLM, start_addr=0x100, len=0x1010)
    assert driver.access(klm, 0x104, 0x20)[0] == [Span(0x500C, 12), Span(0x5800, 0x14)]
    ksm = driver.create_mkey(
        struct.pack(">IIQ", 0, inner, VA) + struct.pack(">IIQ", 0, NULL_KEY, 0),
        **ALL,
        access_mode_1_0=KSM,
        length64=1,
        log_page_size=13,
    )
    assert driver.access(ksm, 0x1FF0, 0x10)[0] == [Span(0x6FF0, 0x10)]
    spans, absent = driver.access(ksm, 0x1FF0, 0x20)
    assert spans == [Span(0x6FF0, 0x10)] and (absent.va, absent.length, absent.key.value) == (
        0x2000,
        0x10,
        ksm,
    )


def test_a_key_reaches_keys_of_its_own_pd_only(driver):
    """Mutation: check the outer key's PD only in Keys._walk_keys."""
    inner = driver.mtt_key(0x5000 | 3, pd=driver.command("ALLOC_PD")["pd"])
    entry = struct.pack(">IIQ", 4096, inner, VA)
    key = driver.create_mkey(entry, **ALL, access_mode_1_0=KLM, start_addr=0, len=4096)
    with pytest.raises(Refused, match="another PD"):
        driver.access(key, 0, 8)


def test_an_old_value_of_a_peer_does_not_free_the_key(driver):
    """A window is bound again, then its old value is invalidated.

    Mutation: compare the index only in Keys.invalidate.
    """
    key = driver.mtt_key(0x5000 | 3, en_rinval=1)
    for value, free in ((key ^ 1, 0), (key, 1)):
        driver.card.hca.keys.invalidate(value, driver.pd)
        assert driver.card.hca.device.objects.table("mkey")[key >> 8].fields["free"] == free


def test_keys_that_refer_to_themselves_end(driver):
    """Mutation: drop the depth limit; the card recurses until it dies."""
    key = driver.create_mkey(bytes(16), **ALL, access_mode_1_0=KLM, start_addr=0, len=4096)
    driver.card.hca.device.objects.table("mkey")[key >> 8].table[:] = struct.pack(">IIQ", 4096, key, 0)
    with pytest.raises(Refused, match="without end"):
        driver.access(key, 0, 8)


def test_reserved_keys(driver):
    assert driver.access(LOCAL_KEY, 0x1234, 8)[0] == [Span(0x1234, 8)]
    assert driver.access(NULL_KEY, 0x1234, 8)[0] == [Span(None, 8)]


@pytest.mark.parametrize(("need", "reserved"), [("lr", False), ("rr", True), ("rw", True), ("a", True)])
def test_the_local_key_is_for_local_accesses_of_the_kernels_queues(driver, need, reserved):
    """It is all of the machine's memory. Mutations: leave `need` out; leave `rlky` out."""
    with pytest.raises(Refused, match="reserved"):
        driver.access(LOCAL_KEY, 0x1234, 8, need, reserved=reserved)


def test_a_key_bound_to_a_queue_is_for_that_queue(driver):
    """Mutation: leave `qpn` out."""
    key = driver.mtt_key(0x5000 | 3)
    driver.card.hca.device.objects.table("mkey")[key >> 8].fields["qpn"] = 0x41
    assert driver.access(key, VA, 1, qpn=0x41)[0]
    with pytest.raises(Refused, match="bound to QP 0x41"):
        driver.access(key, VA, 1, qpn=0x40)


def test_query_mkey_gives_context_and_list(driver):
    key = driver.mtt_key(0x5000 | 3, 0x6000 | 1)
    reply = driver.command("QUERY_MKEY", mkey_index=key >> 8, pg_access=1)
    entry = reply.at("memory_key_mkey_entry")
    assert (entry["start_addr"], entry["len"], entry["lw"], entry["pd"]) == (VA, 8192, 1, driver.pd)
    assert bytes(reply.bytes("bsf0_klm0_pas_mtt0_1")) == mtts(0x5000 | 3, 0x6000 | 1)


def test_a_repeat_block_interleaves(driver):
    """Mutation: advance by the length instead of the stride."""
    inner = driver.mtt_key(0x5000 | 3)
    block = struct.pack(">IIIHH", 12, 0x400, 3, 0, 2)
    block += struct.pack(">HHIQ", 32, 8, inner, VA) + struct.pack(">HHIQ", 16, 4, inner, VA + 0x800)
    key = driver.create_mkey(block, **ALL, access_mode_1_0=KLM, start_addr=0, len=36)
    spans, absent = driver.access(key, 4, 24)
    assert absent is None
    assert spans == [Span(0x5004, 4), Span(0x5800, 4), Span(0x5020, 8), Span(0x5810, 4), Span(0x5040, 4)]


@pytest.mark.parametrize("mode", [KLM, KSM])
@pytest.mark.parametrize("room", [0, 1, 6])
def test_query_mkey_gives_the_list_of_an_indirect_key_as_drivers_ask(driver, mode, room):
    """Reply with the layout's two entries and `room` more. Mutation: for `pg_access` only."""
    entries = b"".join(struct.pack(">IIQ", 4096, driver.mtt_key(0x5000 | 3), VA + at) for at in range(6))
    key = driver.create_mkey(
        entries, **ALL, access_mode_1_0=mode, start_addr=VA, len=6 * 4096, log_page_size=12
    )
    reply = driver.command("QUERY_MKEY", mkey_index=key >> 8, out_extra=16 * room)
    first = reply.layout.slot("bsf0_klm0_pas_mtt0_1").first
    size = min(16 * room + reply.layout.size - first, len(entries))
    assert size >= 32
    assert bytes(reply.data[first : first + size]) == entries[:size]
    assert not any(reply.data[first + size :])
