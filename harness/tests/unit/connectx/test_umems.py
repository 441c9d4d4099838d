"""Rings and doorbell records in umems, as DEVX creates them."""

import struct

import pytest

from harness.connectx.objects.mkeys import User
from harness.guest.rdma import pg_access
from harness.tests.unit.connectx.driver import SERIES, CommandFailed, Driver, Qp
from harness.wire import cqe, wqe

OFFSET = 0x100
READ = 1


@pytest.fixture
def driver():
    made = Driver()
    yield made
    assert made.kinds() == []


def umem(driver, count, offset=0):
    """Create a umem of `count` pages; return its number and the address of its first byte."""
    at = driver.pages(count)
    reply = driver.command(
        "CREATE_UMEM", extra=driver.pas(at, count), umem__num_of_mtt=count, umem__page_offset=offset
    )
    return reply["umem_id"], at + offset


def cq(driver, eqn, log_size=3, place=0, record_at=8):
    """Create a CQ in two umems: its ring is at `place` in the first, its record at `record_at` in the other."""
    ring, at = umem(driver, 1, OFFSET)
    records, record = umem(driver, 1)
    for index in range(1 << log_size):
        driver.memory.write(at + place + 64 * index + 63, b"\xf1")
    field = "c_eqn_or_apu_element" if driver.layouts["cqc"].has("c_eqn_or_apu_element") else "c_eqn"
    request = driver.request(
        "CREATE_CQ",
        cq_context__log_cq_size=log_size,
        cq_context__uar_page=driver.uar,
        cq_context__dbr_addr=record_at,
        cq_context__dbr_umem_valid=1,
        cq_umem_valid=1,
        **{f"cq_context__{field}": eqn},
    )
    struct.pack_into(">I", request.data, 0x10 + 4, records)
    struct.pack_into(">QI", request.data, 0x50, place, ring)
    driver.post(request.data, 16)
    driver.ring()
    answer = driver.answer()
    if answer[0]:
        raise CommandFailed(*struct.unpack_from(">B3xI", answer))
    return driver.layouts["create_cq_out"].view(bytearray(answer))["cqn"], at + place, record + record_at


def qp(driver, cqn):
    ring, at = umem(driver, 1, OFFSET)
    records, record = umem(driver, 1)
    request = driver.request(
        "CREATE_QP",
        qpc__pd=driver.pd,
        qpc__uar_page=driver.uar,
        qpc__cqn_snd=cqn,
        qpc__cqn_rcv=cqn,
        qpc__log_sq_size=2,
        qpc__rq_type=3,
        qpc__dbr_umem_valid=1,
        qpc__dbr_addr=16,
        wq_umem_valid=1,
    )
    struct.pack_into(
        ">QI", request.data, driver.layouts["create_qp_in"].slot("wq_umem_valid").first - 12, 64, ring
    )
    at_context = driver.layouts["create_qp_in"].slot("qpc").first
    struct.pack_into(">I", request.data, at_context + 0xE4, records)
    driver.post(request.data, 16)
    driver.ring()
    number = driver.layouts["create_qp_out"].view(bytearray(driver.answer()))["qpn"]
    return Qp(driver, number, at + 64, record + 16, 4)


@pytest.mark.parametrize("series", SERIES)
def test_work_runs_in_user_memory(series):
    """Mutation: forget the offset of the umem, of the ring in it, or of the record."""
    driver = Driver(series=series)
    eqn, _ = driver.create_eq()
    cqn, ring, _ = cq(driver, eqn, place=128)
    queue = qp(driver, cqn)
    driver.to_rts(queue.number)
    for turn in range(6):
        queue.post(wqe.NOP)
        entry = cqe.Cqe(driver.memory.read(ring + 64 * turn, 64))
        assert (entry.opcode, entry.wqe_counter) == (cqe.REQUESTER, turn)
    assert driver.kinds() == []


def test_ranges_outside_a_umem_are_refused(driver):
    """A program's mistake, not the driver's: no finding. Mutation: check no size."""
    eqn, _ = driver.create_eq()
    with pytest.raises(CommandFailed):
        cq(driver, eqn, log_size=6, place=64)
    number, _ = umem(driver, 1)
    driver.command("DESTROY_UMEM", umem_id=number)


@pytest.mark.parametrize("series", SERIES)
def test_a_key_over_a_umem_has_its_pages_and_its_access(series):
    """As programs create it by DEVX. Mutation: set pg_access one bit further, or forget the umem's access bits."""
    driver = Driver(series=series)
    at = driver.pages(3)
    extra = struct.pack(">3Q", *(at + 4096 * page | READ for page in range(3)))
    number = driver.command("CREATE_UMEM", extra=extra, umem__num_of_mtt=3)["umem_id"]
    sent = pg_access.request(driver.pd, number, 0x7000_0000, 3 * 4096)
    request = driver.layouts["create_mkey_in"].view(bytearray(sent))
    context = request.at("memory_key_mkey_entry")
    assert (request["opcode"], request["pg_access"], request["mkey_umem_valid"]) == (0x200, 1, 1)
    assert (context["pd"], context["start_addr"], context["len"]) == (driver.pd, 0x7000_0000, 3 * 4096)
    assert [context[right] for right in ("a", "rw", "rr", "lw", "lr", "access_mode_1_0")] == [
        0,
        1,
        1,
        1,
        1,
        1,
    ]
    assert (context["mkey_7_0"], context["log_page_size"], context["qpn"]) == (0x42, 12, 0xFFFFFF)
    driver.post(sent, 16)
    driver.ring()
    reply = driver.answer()
    assert reply[0] == 0
    index = int.from_bytes(reply[9:12], "big")
    keys, user = driver.card.hca.keys, User(driver.pd, 0x40, reserved=False)
    assert keys.created["pg_access"] == 1
    spans, absent = keys.access(index << 8 | 0x42, 0x7000_0000 + 100, 8192, user, "rr", 0)
    assert [(span.address, span.length) for span in spans] == [(at + 100, 8192)] and absent is None
    spans, absent = keys.access(index << 8 | 0x42, 0x7000_0000, 8, user, "rw", 0)
    assert absent is not None, "the umem may only be read"
    with pytest.raises(CommandFailed):
        driver.command("DESTROY_UMEM", umem_id=77)
