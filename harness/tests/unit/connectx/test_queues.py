import struct

import pytest

from harness.tests.unit.connectx.driver import CommandFailed
from harness.wire import cqe, eqe, wqe


def entry(driver, ring, index, kind=cqe.Cqe):
    return kind(driver.memory.read(ring + 64 * index, 64))


def test_the_owner_bit_flips_with_each_pass(driver):
    """Mutation: write the owner bit of the first pass for ever."""
    eqn, _ = driver.create_eq()
    cqn, ring, record = driver.create_cq(eqn, log_size=2)
    qp = driver.create_qp(cqn)
    driver.to_rts(qp.number)
    for count in range(1, 11):
        driver.memory.write(record, struct.pack(">I", count - 1))
        qp.post(wqe.NOP)
        done = entry(driver, ring, (count - 1) % 4)
        assert (done.owner, done.opcode, done.wqe_counter) == ((count - 1) >> 2 & 1, cqe.REQUESTER, count - 1)
    assert driver.card.findings() == []


def test_a_full_completion_queue_breaks_with_an_event(driver):
    """Mutation: overwrite the oldest entry."""
    eqn, events = driver.create_eq((eqe.CQ_ERROR,))
    cqn, ring, _ = driver.create_cq(eqn, log_size=2)
    qp = driver.create_qp(cqn)
    driver.to_rts(qp.number)
    for _ in range(5):
        qp.post(wqe.NOP)
    event = eqe.CqErrorEqe(driver.memory.read(events, 64))
    assert (event.type, event.cqn) == (eqe.CQ_ERROR, cqn)
    assert entry(driver, ring, 0).wqe_counter == 0
    assert driver.kinds() == ["queue-overrun"]


def test_a_full_event_queue_drops_the_event_with_a_finding(driver):
    """Mutation: let events overwrite those that were not read."""
    eqn, ring = driver.create_eq((eqe.COMMAND,), log_size=1)
    for _ in range(3):
        driver.command("NOP")
    assert driver.kinds() == ["queue-overrun"]
    driver.uar_write(0x48, struct.pack(">I", eqn << 24 | 2))
    driver.command("NOP")
    assert eqe.CommandEqe(driver.memory.read(ring, 64)).owner == 1


def test_an_event_queue_interrupts_once_per_arming(driver):
    """Mutation: do not disarm after the interrupt."""
    eqn, _ = driver.create_eq((eqe.COMMAND,), vector=5)
    driver.command("NOP")
    assert driver.fired == []
    driver.arm_eq(eqn)  # the counter is behind: at once
    assert driver.fired == [5]
    driver.arm_eq(eqn, consumer=1)
    driver.command("NOP")
    driver.command("NOP")
    assert driver.fired == [5, 5]


@pytest.mark.parametrize(("solicited_only", "events"), [(False, 1), (True, 0)])
def test_a_completion_queue_notifies_as_it_is_armed(driver, solicited_only, events):
    """Mutation: treat the solicited bit as "any"."""
    eqn, ring = driver.create_eq()
    cqn, _, _ = driver.create_cq(eqn)
    qp = driver.create_qp(cqn)
    driver.to_rts(qp.number)
    driver.arm_cq(cqn, solicited=solicited_only)
    qp.post(wqe.NOP)
    qp.post(wqe.NOP)
    assert driver.card.counters()["events"] == events
    if events:
        assert eqe.CompletionEqe(driver.memory.read(ring, 64)).cqn == cqn


def test_arming_behind_the_producer_notifies_at_once(driver):
    """Mutation: remember the arming only; a completion between poll and arm is missed."""
    eqn, _ = driver.create_eq()
    cqn, _, _ = driver.create_cq(eqn)
    qp = driver.create_qp(cqn)
    driver.to_rts(qp.number)
    qp.post(wqe.NOP)
    driver.arm_cq(cqn, consumer=0)
    driver.arm_cq(cqn, consumer=1)
    assert driver.card.counters()["events"] == 1


def test_a_doorbell_in_two_halves_counts_once(driver):
    """32-bit kernels and pyverbs write so. Mutation: take the first half for the whole."""
    eqn, _ = driver.create_eq()
    cqn, ring, _ = driver.create_cq(eqn)
    qp = driver.create_qp(cqn)
    driver.to_rts(qp.number)
    qp.post(wqe.NOP, ring=False)
    driver.memory.write(qp.record + 4, struct.pack(">I", 1))
    driver.uar_write(0x800, struct.pack(">I", wqe.NOP))
    assert entry(driver, ring, 0).owner == 1
    driver.uar_write(0x804, struct.pack(">I", qp.number << 8 | 1))
    assert entry(driver, ring, 0).owner == 0


def test_resize_ends_the_old_ring_and_starts_the_new_one(driver):
    """Mutation: keep the old ring's size for the owner bit."""
    eqn, _ = driver.create_eq()
    cqn, ring, record = driver.create_cq(eqn, log_size=2)
    qp = driver.create_qp(cqn)
    driver.to_rts(qp.number)
    qp.post(wqe.NOP)
    new = driver.page()
    driver.command("MODIFY_CQ", op_mod=1, cqn=cqn, extra=driver.pas(new, 1), cq_context__log_cq_size=5)
    assert entry(driver, ring, 1).opcode == cqe.RESIZE
    driver.memory.write(record, struct.pack(">I", 2))
    qp.post(wqe.NOP)
    assert entry(driver, new, 2).wqe_counter == 1
    assert driver.command("QUERY_CQ", cqn=cqn)["cq_context.log_cq_size"] == 5


def test_a_queue_does_not_shrink_below_its_unread_entries(driver):
    """Mutation: let the RESIZE entry overrun the ring."""
    eqn, _ = driver.create_eq()
    cqn, _, _ = driver.create_cq(eqn, log_size=3)
    qp = driver.create_qp(cqn)
    driver.to_rts(qp.number)
    for _ in range(4):
        qp.post(wqe.NOP)
    with pytest.raises(CommandFailed) as caught:
        driver.command(
            "MODIFY_CQ", op_mod=1, cqn=cqn, extra=driver.pas(driver.page(), 1), cq_context__log_cq_size=1
        )
    assert caught.value.status == 0x40 and driver.card.findings() == []


def test_a_page_list_too_short_is_refused(driver):
    """Mutation: take what is listed and index past it later."""
    with pytest.raises(CommandFailed):
        driver.command("CREATE_EQ", eq_context_entry__log_eq_size=8, eq_context_entry__uar_page=driver.uar)
    assert driver.kinds() == ["bad-value"]
