"""Rules on UMRs and commands."""

import struct

import pytest

from harness.tests.unit.connectx.driver import CommandFailed, Driver
from harness.tests.unit.connectx.test_rules import hits
from harness.values.rule import Rule
from harness.wire import cqe, eqe


class UmrRig(Driver):
    """A UMR QP and a key that it changes."""

    def __init__(self):
        super().__init__()
        self.eqn, _ = self.create_eq()
        self.cqn, self.entries, _ = self.create_cq(self.eqn)
        self.qp = self.create_qp(self.cqn)
        self.to_rts(self.qp.number)
        self.key = self.create_mkey(
            bytes(64), access_mode_1_0=1, len=4 * 4096, log_page_size=12, umr_en=1, lr=1, lw=1, pg_access=1
        )
        self.taken = 0

    def update(self, *entries):
        self.qp.umr(self.key, 0x80, 0, listed=struct.pack(">8Q", *entries, *(0,) * (8 - len(entries))))

    def status(self):
        entry = cqe.Cqe(self.memory.read(self.entries + 64 * self.taken, 64))
        if entry.opcode == cqe.INVALID:
            return None
        self.taken += 1
        return cqe.ErrorCqe(entry.data).syndrome if entry.opcode == cqe.REQUESTER_ERROR else 0

    def first_entry(self):
        return int.from_bytes(self.card.hca.device.objects.table("mkey")[self.key >> 8].table[:8], "big")


def test_delay_umr_delays_those_behind_it_too():
    """Mutation: let the next one overtake; delay it again each time it is looked at."""
    rig = UmrRig()
    rig.card.arm([Rule("delay-umr", umr="map", delay_ms=25, since="start", count=0)])
    rig.update(0x5003)
    rig.update(0)
    assert rig.status() is None and rig.first_entry() == 0
    rig.now += 0.026
    rig.card.tick()
    assert [rig.status(), rig.status()] == [0, 0] and rig.first_entry() == 0
    assert hits(rig) == [1]


@pytest.mark.parametrize(("umr", "failing"), [("map", 0), ("zap", 1)])
def test_fail_umr_leaves_the_key_unchanged(umr, failing):
    """Mutation: apply it and complete with error; take a list of zeros for a map."""
    rig = UmrRig()
    rig.card.arm([Rule("fail-umr", umr=umr, syndrome=0x12, since="start")])
    rig.update(0x5003)
    if failing == 0:
        assert rig.status() == 0x12 and rig.first_entry() == 0
    else:
        assert rig.status() == 0
        rig.update(0)
        assert rig.status() == 0x12 and rig.first_entry() == 0x5003
    assert hits(rig) == [1]


def test_since_delays_rules_until_a_user_is_connected():
    """Mutation: act at once."""
    rig = UmrRig()
    rig.card.arm([Rule("fail-umr")])
    rig.update(0x5003)
    assert rig.status() == 0 and rig.card.outcomes()[0]["matches"] == 0
    rig.card.arm([Rule("fail-command", opcode="ALLOC_PD", since="user")])
    rig.command("ALLOC_PD")
    at, record = rig.page(), rig.page()
    rig.command(
        "CREATE_CQ",
        extra=rig.pas(at, 1),
        uid=7,
        cq_context__log_cq_size=4,
        cq_context__uar_page=rig.uar,
        cq_context__dbr_addr=record,
        cq_context__c_eqn_or_apu_element=rig.eqn,
    )
    with pytest.raises(CommandFailed):
        rig.command("ALLOC_PD")


def test_delay_command_answers_late_by_event():
    """Mutation: return the slot at once; forget the event."""
    driver = Driver()
    driver.create_eq((eqe.COMMAND,))
    ring = driver.next - 4096
    driver.card.arm([Rule("delay-command", opcode="ALLOC_PD", since="start", delay_ms=15)])
    driver.post(driver.request("ALLOC_PD").data, 16, slot=3)
    driver.ring(8)
    assert driver.slot(3)[63] & 1
    driver.now += 0.016
    driver.card.tick()
    assert driver.answer(3)[0] == 0
    assert eqe.CommandEqe(driver.memory.read(ring, 64)).vector == 8
    assert "ALLOC_PD: 15 ms late" in driver.card.outcomes()[0]["text"]


def test_fail_command_answers_with_an_error():
    """Mutation: run it all the same."""
    driver = Driver()
    before = driver.card.counters()["objects"]
    driver.card.arm(
        [Rule("fail-command", opcode="ALLOC_PD", since="start", status=8, syndrome=0x1234, nth=2)]
    )
    driver.command("ALLOC_PD")
    with pytest.raises(CommandFailed) as caught:
        driver.command("ALLOC_PD")
    assert (caught.value.status, caught.value.syndrome) == (8, 0x1234)
    assert driver.card.counters()["objects"]["pd"] == before["pd"] + 1


def test_lose_command_never_answers_and_reset_forgets_it():
    """Mutation: answer at the next tick."""
    driver = Driver()
    driver.card.arm([Rule("lose-command", opcode="ALLOC_PD", since="start")])
    driver.post(driver.request("ALLOC_PD").data, 16, slot=3)
    driver.ring(8)
    driver.now += 100
    driver.card.tick()
    assert driver.slot(3)[63] & 1 and hits(driver) == [1]
    assert driver.command("ALLOC_PD")["pd"]
