import pytest

from harness.connectx import findings
from harness.connectx.objects.qps import TRANSITIONS
from harness.connectx.status import Status
from harness.tests.unit.connectx.driver import CommandFailed, Driver
from harness.wire import eqe


@pytest.fixture
def driver():
    return Driver()


def fails(status, run, *arguments, **fields):
    with pytest.raises(CommandFailed) as caught:
        run(*arguments, **fields)
    assert caught.value.status == status


def test_destroy_in_use_is_busy_and_found(driver):
    """Mutation: take PDs out of judge.REFERRERS."""
    driver.create_mkey(length64=1, access_mode_1_0=0)
    fails(Status.RES_BUSY, driver.command, "DEALLOC_PD", pd=driver.pd)
    eqn, _ = driver.create_eq()
    cqn, _, _ = driver.create_cq(eqn)
    fails(Status.RES_BUSY, driver.command, "DESTROY_EQ", eq_number=eqn)
    driver.create_qp(cqn)
    fails(Status.RES_BUSY, driver.command, "DESTROY_CQ", cqn=cqn)
    assert driver.kinds() == ["destroy-in-use"] * 3


def test_use_after_destroy_is_told_from_never_made(driver):
    """Mutation: do not remember numbers that are gone."""
    pd = driver.command("ALLOC_PD")["pd"]
    driver.command("DEALLOC_PD", pd=pd)
    fails(Status.BAD_RES, driver.command, "DEALLOC_PD", pd=pd)
    fails(Status.BAD_RES, driver.command, "DEALLOC_PD", pd=0xABC)
    assert driver.kinds() == ["use-after-destroy", "no-such-object"]


def test_numbers_do_not_come_back_at_once(driver):
    """Mutation: hand out the lowest free number."""
    first = driver.command("ALLOC_PD")["pd"]
    driver.command("DEALLOC_PD", pd=first)
    assert driver.command("ALLOC_PD")["pd"] != first


def test_event_queue_numbers_have_eight_bits(driver):
    """The doorbell has no more. Mutation: drop "eq" from judge.LIMITS."""
    for _ in range(600):
        eqn, _ = driver.create_eq()
        driver.next -= 4096
        assert 0 < eqn < 256
        driver.command("DESTROY_EQ", eq_number=eqn)


def test_what_is_left_at_teardown_is_found(driver):
    """Mutation: skip judge.teardown in TEARDOWN_HCA."""
    driver.create_eq((eqe.PORT_CHANGE,))
    driver.command("DEALLOC_PD", pd=driver.pd)
    driver.command("TEARDOWN_HCA")
    found = driver.card.findings()
    assert [finding["kind"] for finding in found] == ["left-at-teardown"] * 2
    assert {finding["subject"] for finding in found} == {"1 uar", "1 eq"}


def test_pages_not_taken_back_are_found(driver):
    """Mutation: skip pages.lost in DISABLE_HCA."""
    driver.command("DEALLOC_PD", pd=driver.pd)
    driver.command("DEALLOC_UAR", uar=driver.uar)
    driver.command("TEARDOWN_HCA")
    driver.command("MANAGE_PAGES", op_mod=2, input_num_entries=512, out_extra=8 * 512)
    driver.command("DISABLE_HCA")
    held = driver.card.model.boot_pages + driver.card.model.init_pages - 512
    assert driver.card.findings() == [
        {"kind": "pages-lost", "subject": f"{held} pages", "detail": "not taken back at DISABLE_HCA"}
    ]


@pytest.mark.parametrize("name", [name for name in TRANSITIONS if not name.startswith("2")])
@pytest.mark.parametrize("state", range(4))
def test_only_the_edges_of_the_state_machine_exist(driver, name, state):
    """Mutation: allow INIT2RTR from RST."""
    eqn, _ = driver.create_eq()
    cqn, _, _ = driver.create_cq(eqn)
    qp = driver.create_qp(cqn)
    for step in ("RST2INIT_QP", "INIT2RTR_QP", "RTR2RTS_QP")[:state]:
        driver.command(step, qpn=qp.number)
    layout = "sqd2rts_qp" if name == "SQD_RTS_QP" else ""
    if state in TRANSITIONS[name][0]:
        driver.command(name, layout, qpn=qp.number)
        assert driver.command("QUERY_QP", qpn=qp.number)["qpc.state"] == TRANSITIONS[name][1]
    else:
        fails(Status.BAD_QP_STATE, driver.command, name, layout, qpn=qp.number)
        assert driver.kinds() == ["bad-qp-transition"]


def test_optional_fields_change_only_when_asked_for(driver):
    """Mutation: copy the whole context."""
    eqn, _ = driver.create_eq()
    cqn, _, _ = driver.create_cq(eqn)
    qp = driver.create_qp(cqn, st=0)
    driver.command("RST2INIT_QP", qpn=qp.number, qpc__rre=1)
    driver.command("INIT2RTR_QP", qpn=qp.number, qpc__rwe=1, qpc__rae=1, opt_param_mask=1 << 3)
    context = driver.command("QUERY_QP", qpn=qp.number).at("qpc")
    assert [context[name] for name in ("rre", "rwe", "rae", "cqn_snd")] == [1, 1, 0, cqn]


def test_pages_are_asked_for_as_objects_come_and_offered_back_as_they_go(driver):
    """Mutation: ask for -STEP with the sign of a request."""
    driver.create_eq((eqe.PAGE_REQUEST,), log_size=6)
    ring = driver.next - 4096
    keys = [driver.create_mkey(length64=1, access_mode_1_0=0) for _ in range(40)]
    request = eqe.PageRequestEqe(driver.memory.read(ring, 64))
    assert (request.type, request.num_pages) == (eqe.PAGE_REQUEST, 64)
    for _ in range(5):
        driver.give(64)
        keys += [driver.create_mkey(length64=1, access_mode_1_0=0) for _ in range(250)]
    driver.give(64)
    for key in keys:
        driver.command("DESTROY_MKEY", mkey_index=key >> 8)
    events = [eqe.PageRequestEqe(driver.memory.read(ring + 64 * index, 64)) for index in range(8)]
    counts = [event.num_pages for event in events if event.type == eqe.PAGE_REQUEST]
    assert counts[-1] == 0xFFFFFFFF - 63
    taken = driver.command("MANAGE_PAGES", op_mod=2, input_num_entries=64, out_extra=512)[
        "output_num_entries"
    ]
    assert taken == 64 and driver.card.findings() == []


def test_what_is_found_again_and_again_does_not_grow(driver, monkeypatch):
    """A broken record is looked at for as long as its queue lives. Mutations: no limit for one; none for all; forget
    what comes after repeats.
    """
    monkeypatch.setattr(findings, "MAX_REPEATS", 2)
    monkeypatch.setattr(findings, "MAX_FINDINGS", 5)
    told = len(driver.notes)
    for _ in range(5):
        driver.card.hca.device.findings.report("bad-value", "qp 0x40", "the same")
    for number in range(5):
        driver.card.hca.device.findings.report("bad-address", f"qp {number}", "another")
    assert driver.kinds() == ["bad-value"] * 2 + ["bad-address"] * 3
    assert len(driver.notes) == told + 5
