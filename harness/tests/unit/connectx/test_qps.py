import pytest

from harness.connectx.objects.qps import TRANSITIONS
from harness.connectx.status import Status
from harness.tests.unit.connectx.driver import fails


@pytest.mark.parametrize("name", [name for name in TRANSITIONS if not name.startswith("2")])
@pytest.mark.parametrize("state", range(4))
def test_only_edges_of_the_state_machine_are_allowed(driver, name, state):
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


def test_optional_fields_change_only_with_their_mask_bit(driver):
    """Mutation: copy the whole context."""
    eqn, _ = driver.create_eq()
    cqn, _, _ = driver.create_cq(eqn)
    qp = driver.create_qp(cqn, st=0)
    driver.command("RST2INIT_QP", qpn=qp.number, qpc__rre=1)
    driver.command("INIT2RTR_QP", qpn=qp.number, qpc__rwe=1, qpc__rae=1, opt_param_mask=1 << 3)
    context = driver.command("QUERY_QP", qpn=qp.number).at("qpc")
    assert [context[name] for name in ("rre", "rwe", "rae", "cqn_snd")] == [1, 1, 0, cqn]
