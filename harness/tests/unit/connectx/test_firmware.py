import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.connectx.card import MODELS
from harness.connectx.status import Status
from harness.tests.unit.connectx.driver import BASE, SERIES, CommandFailed, Driver
from harness.wire import eqe


@pytest.mark.parametrize("series", SERIES)
@pytest.mark.parametrize("model", MODELS)
def test_start_and_stop_leave_nothing(series, model):
    """Mutation: forget to clear `held` in Pages.take; the last command finds pages."""
    driver = Driver(model, series)
    eqn, _ = driver.create_eq((eqe.COMMAND,))
    cqn, _, _ = driver.create_cq(eqn)
    qp = driver.create_qp(cqn)
    driver.to_rts(qp.number)
    driver.command("2RST_QP", "qp_2rst", qpn=qp.number)
    driver.command("DESTROY_QP", qpn=qp.number)
    driver.command("DESTROY_CQ", cqn=cqn)
    driver.command("DESTROY_EQ", eq_number=eqn)
    driver.stop()
    assert driver.card.findings() == []
    assert driver.card.counters()["objects"] == {} and driver.card.counters()["pages"] == 0


def test_a_short_reply_gets_the_start_of_a_capability_page(driver):
    """As DEVX programs do. Mutation: require the whole structure."""
    whole = driver.command("QUERY_HCA_CAP", op_mod=1).bytes("capability")
    driver.post(driver.request("QUERY_HCA_CAP", op_mod=1).data, 16 + 0x800)
    driver.ring()
    reply = driver.answer()
    assert reply[0] == 0 and reply[16:] == whole[:0x800]


def test_init_segment_states_queue_and_revision(driver):
    """Mutation: let the driver's address overwrite the queue's geometry."""
    words = struct.unpack(">8I", driver.card.bar_read(0, 0, 32))
    assert words[0] == 35 << 16 | 16 and words[1] >> 16 == 5
    assert words[5] == driver.queue | 0x56
    first, second = (driver.card.bar_read(0, 0x1010, 4) for _ in range(2))
    assert first != second
    driver.now = 2.0
    high, low = struct.unpack(">II", driver.card.bar_read(0, 0x1000, 8))
    assert high << 32 | low == 312_500_000


def test_messages_longer_than_a_slot_go_through_mailboxes(driver):
    """Mutation: cut the last mailbox at 512 bytes instead of what is left."""
    reply = driver.command("QUERY_HCA_VPORT_PKEY", pkey_index=0xFFFF, out_extra=512)
    pkeys = struct.unpack_from(">128I", reply.bytes("pkey"))
    assert pkeys[0] == 0xFFFF and not any(pkeys[1:])
    capability = driver.command("QUERY_HCA_CAP", op_mod=1).at("capability.cmd_hca_cap")
    assert capability["xrc"] == 1 and capability["log_max_qp"] == 17


@pytest.mark.parametrize(("byte", "value", "delivery"), [(573, 8, 2), (571, 5, 3)])
def test_a_wrong_mailbox_is_not_executed(driver, byte, value, delivery):
    """Token and block number are checked. Mutation: drop the token check in mailbox._chain."""
    driver.post(driver.request("QUERY_HCA_CAP", op_mod=1).data, 4112)
    (pointer,) = struct.unpack_from(">Q", driver.slot(), 48)
    driver.memory.write(pointer + byte, bytes([value]))
    driver.ring()
    assert driver.slot()[63] == delivery << 1
    assert driver.kinds() == ["bad-value"]


def test_several_slots_in_one_doorbell_complete_in_one_event(driver):
    """Mutation: stop after the lowest slot."""
    eqn, ring = driver.create_eq((eqe.COMMAND,), vector=3)
    driver.arm_eq(eqn)
    for slot in (0, 4, 31):
        driver.post(driver.request("ALLOC_PD").data, 16, slot=slot)
    driver.ring(1 | 1 << 4 | 1 << 31)
    numbers = {struct.unpack_from(">I", driver.answer(slot), 8)[0] for slot in (0, 4, 31)}
    assert len(numbers) == 3
    event = eqe.CommandEqe(driver.memory.read(ring, 64))
    assert (event.type, event.owner, event.vector) == (eqe.COMMAND, 0, 1 | 1 << 4 | 1 << 31)
    assert driver.fired == [3]


def test_the_command_that_creates_the_queue_is_not_reported_by_it(driver):
    """Linux 7.2 dereferences NULL otherwise. Mutation: look for the queue after the command."""
    _, ring = driver.create_eq((eqe.COMMAND,))
    assert driver.memory.read(ring, 64) == bytes(63) + b"\1"


def test_an_unknown_command_is_answered_and_counted_with_a_stub(driver):
    """Mutation: answer OK."""
    with pytest.raises(CommandFailed) as caught:
        driver.command("QUERY_FLOW_COUNTER")
    assert caught.value.status == Status.BAD_OP
    unknown = driver.card.counters()["unknown"]["QUERY_FLOW_COUNTER"]
    assert unknown["count"] == 1 and '@command("QUERY_FLOW_COUNTER")' in unknown["stub"]
    assert [note for note in driver.notes if note["what"] == "unknown"]


def test_a_request_too_short_is_a_status(driver):
    """Mutation: read missing bytes as zero."""
    driver.post(driver.request("CREATE_CQ").data[:32], 16)
    driver.ring()
    assert driver.answer()[0] == Status.BAD_INPUT_LENGTH


def test_addresses_outside_memory_are_findings_and_statuses(driver):
    """Mutation: do not catch DmaError in Card._call."""
    driver.post(bytes(64), 16)
    driver.memory.write(driver.queue + 8, struct.pack(">Q", 0xDEAD_0000))
    driver.ring()
    assert driver.slot()[63] == 0x10 << 1
    driver.card.bar_write(0, 0x10, struct.pack(">I", 0xFFFF))
    driver.ring()
    assert driver.kinds() == ["bad-address", "bad-address"]


def test_a_slot_that_the_driver_owns_is_not_run(driver):
    """Mutation: ignore the ownership bit."""
    driver.post(driver.request("ALLOC_PD").data, 16)
    driver.memory.write(driver.queue + 63, b"\0")
    before = driver.card.counters()["commands"]["ALLOC_PD"]
    driver.ring()
    assert driver.card.counters()["commands"]["ALLOC_PD"] == before
    assert driver.kinds() == ["bad-value"]


def test_capabilities_are_set_before_init_only():
    """Mutation: allow SET_HCA_CAP at any time."""
    driver = Driver(start=False)
    page = driver.command("QUERY_HCA_CAP", op_mod=1).bytes("capability")
    page[: len(page)] = bytes(page)
    request = driver.request("SET_HCA_CAP", op_mod=0)
    driver.layouts["cmd_hca_cap"].view(page)["log_max_qp"] = 12
    request.bytes("capability")[:] = page
    driver.post(request.data, 16)
    driver.ring()
    assert driver.answer()[0] == 0
    current = driver.command("QUERY_HCA_CAP", op_mod=1).at("capability.cmd_hca_cap")
    most = driver.command("QUERY_HCA_CAP", op_mod=0).at("capability.cmd_hca_cap")
    assert (current["log_max_qp"], most["log_max_qp"]) == (12, 17)
    driver.start()
    with pytest.raises(CommandFailed) as caught:
        driver.command("SET_HCA_CAP", op_mod=0)
    assert caught.value.status == Status.BAD_SYS_STATE


def test_atomics_keep_their_page_when_the_mode_is_set():
    """The driver writes one field and zeros. Mutation: store the whole page."""
    driver = Driver(start=False)
    request = driver.request("SET_HCA_CAP", op_mod=3 << 1)
    request.at("capability.atomic_caps")["atomic_req_8B_endianness_mode"] = 1
    driver.post(request.data, 16)
    driver.ring()
    caps = driver.command("QUERY_HCA_CAP", op_mod=3 << 1 | 1).at("capability.atomic_caps")
    assert caps["atomic_operations"] == 3 and caps["atomic_req_8B_endianness_mode"] == 1


@pytest.mark.parametrize(
    ("model", "series", "expected"),
    [
        ("connectx-5", "7.3", {"transport_page_fault_scheme_cap.rc_odp_caps.atomic": 1, "mem_page_fault": 0}),
        ("connectx-7", "7.3", {"memory_page_fault_scheme_cap.page_prefetch": 1, "mem_page_fault": 1}),
        ("connectx-7", "6.1", {"rc_odp_caps.read": 1, "xrc_odp_caps.srq_receive": 1}),
        ("connect-ib", "6.1", {"rc_odp_caps.read": 1, "rc_odp_caps.atomic": 0, "xrc_odp_caps.send": 0}),
    ],
)
def test_odp_capabilities_by_model(model, series, expected):
    """Mutation: offer mem_page_fault on connectx-5."""
    driver = Driver(model, series, start=False)
    caps = driver.command("QUERY_HCA_CAP", op_mod=4).at("capability.odp_cap")
    assert {name: caps[name] for name in expected} == expected


def test_reset_drops_objects_without_a_finding(driver):
    """Mutation: handle a reset as a teardown."""
    driver.card.reset()
    assert driver.card.findings() == [] and driver.card.counters()["objects"] == {}
    assert driver.card.bar_read(0, 0x14, 4) == b"\0\0\0\x56"


def test_a_defect_of_the_model_is_a_status_not_an_exception(driver, monkeypatch):
    """Mutation: let exceptions of commands through; QEMU would abort with the card."""
    monkeypatch.setattr(driver.card.hca.device.objects, "number", lambda kind: 1 // 0)
    with pytest.raises(CommandFailed) as caught:
        driver.command("ALLOC_PD")
    assert caught.value.status == Status.INTERNAL
    assert "ZeroDivisionError" in next(note["trace"] for note in driver.notes if "trace" in note)
    assert driver.kinds() == ["model-error"]


_OFFSETS = st.one_of(
    st.integers(0, 0x2000), st.integers(16 * 4096, 20 * 4096), st.integers(0, (32 << 20) - 8)
)


@settings(max_examples=300, deadline=None)
@given(st.lists(st.tuples(_OFFSETS, st.binary(min_size=1, max_size=8)), max_size=12))
def test_random_writes_to_registers_and_doorbells_never_raise(writes):
    driver = Driver()
    driver.create_eq((eqe.COMMAND,))
    for offset, data in writes:
        driver.card.bar_write(0, offset, data)
        driver.card.bar_read(0, offset & ~3, 4)
    assert not [note for note in driver.notes if note["what"] == "error" and "trace" in note]


@settings(max_examples=400, deadline=None)
@given(st.data())
def test_random_commands_never_raise(data):
    """Every command with random bytes; addresses are in memory half of the time."""
    driver = Driver()
    names = sorted(set(driver.layouts.opcodes().values()))
    for _ in range(4):
        name = data.draw(st.sampled_from(names))
        body = bytearray(data.draw(st.binary(min_size=14, max_size=700)))
        if len(body) > 24 and data.draw(st.booleans()):
            struct.pack_into(">Q", body, len(body) - 8, BASE)
        request = struct.pack(">H", driver.layouts.value(f"MLX5_CMD_OP_{name}")) + bytes(body)
        driver.next = BASE + 0x10_0000
        driver.post(request, data.draw(st.integers(16, 900)))
        driver.ring()
        assert not driver.slot()[63] & 1
    assert not [note for note in driver.notes if note["what"] == "error" and "trace" in note]
