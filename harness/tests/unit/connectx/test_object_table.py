from harness.connectx.status import Status
from harness.tests.unit.connectx.driver import fails
from harness.wire import eqe


def test_destroy_in_use_is_busy_and_a_finding(driver):
    """Mutation: take PDs out of object_table.REFERRERS."""
    driver.create_mkey(length64=1, access_mode_1_0=0)
    fails(Status.RES_BUSY, driver.command, "DEALLOC_PD", pd=driver.pd)
    eqn, _ = driver.create_eq()
    cqn, _, _ = driver.create_cq(eqn)
    fails(Status.RES_BUSY, driver.command, "DESTROY_EQ", eq_number=eqn)
    driver.create_qp(cqn)
    fails(Status.RES_BUSY, driver.command, "DESTROY_CQ", cqn=cqn)
    assert driver.kinds() == ["destroy-in-use"] * 3


def test_use_after_destroy_differs_from_no_such_object(driver):
    """Mutation: do not remember destroyed numbers."""
    pd = driver.command("ALLOC_PD")["pd"]
    driver.command("DEALLOC_PD", pd=pd)
    fails(Status.BAD_RES, driver.command, "DEALLOC_PD", pd=pd)
    fails(Status.BAD_RES, driver.command, "DEALLOC_PD", pd=0xABC)
    assert driver.kinds() == ["use-after-destroy", "no-such-object"]


def test_numbers_are_not_reused_at_once(driver):
    """Mutation: return the lowest free number."""
    first = driver.command("ALLOC_PD")["pd"]
    driver.command("DEALLOC_PD", pd=first)
    assert driver.command("ALLOC_PD")["pd"] != first


def test_event_queue_numbers_have_eight_bits(driver):
    """The doorbell has no more. Mutation: drop "eq" from object_table.LIMITS."""
    for _ in range(600):
        eqn, _ = driver.create_eq()
        driver.next -= 4096
        assert 0 < eqn < 256
        driver.command("DESTROY_EQ", eq_number=eqn)


def test_objects_left_at_teardown_are_a_finding(driver):
    """Mutation: skip ObjectTable.teardown in TEARDOWN_HCA."""
    driver.create_eq((eqe.PORT_CHANGE,))
    driver.command("DEALLOC_PD", pd=driver.pd)
    driver.command("TEARDOWN_HCA")
    findings = driver.card.findings()
    assert [finding["kind"] for finding in findings] == ["left-at-teardown"] * 2
    assert {finding["subject"] for finding in findings} == {"1 uar", "1 eq"}
