"""Rules on resumes, accesses and event queues, on two QPs of one card."""

import struct

import pytest

from harness.connectx.faults.bogus_events import (
    EVENT_ACTIONS,
)
from harness.connectx.rules.rules import DECISIONS
from harness.errors import UsageError
from harness.tests.unit.connectx.driver import CommandFailed
from harness.tests.unit.connectx.pair import PATTERN, VA, conserved, hits, resolve, write_absent
from harness.values.rule import KINDS, SELECTORS, Rule, keys_of
from harness.wire import eqe, wqe


def test_every_kind_of_rule_is_implemented():
    """Mutation: forget to mark one."""
    done = set(DECISIONS) | set(EVENT_ACTIONS) | {"absent-page", "destroyed-object"}
    assert done == set(KINDS)
    names = {field for kind in KINDS for field in keys_of(kind)}
    assert names == set(Rule.__dataclass_fields__) and set(SELECTORS) == {k.on for k in KINDS.values()}


def test_arming_refuses_invalid_rules(pair):
    """Mutation: accept any dict."""
    for rules in (
        [{"kind": "stomr"}],
        [{"kind": "storm", "evnts": 3}],
        [{"kind": "storm", "nth": "first"}],
        [7],
    ):
        with pytest.raises(UsageError):
            pair.card.arm(rules)
    pair.card.arm([{"kind": "storm", "events": 3}])
    assert pair.card.outcomes()[0]["matches"] == 0


@pytest.mark.parametrize(
    ("selectors", "taken"),
    [
        ({}, [1]),
        ({"nth": 3}, [3]),
        ({"nth": 2, "every": 2, "count": 2}, [2, 4]),
        ({"every": 3, "count": 0}, [1, 4]),
        ({"count": 0, "side": "requester"}, [1, 2, 3, 4, 5]),
        ({"count": 0, "side": "rdma"}, []),
        ({"count": 0, "percent": 50, "seed": 5}, [2, 4]),
    ],
)
def test_selectors_choose_matches(pair, selectors, taken):
    """Mutation: count from 0; forget `every`; let a side match all."""
    pair.card.arm([Rule("prefetch-hint"), Rule("delay-event", delay_ms=1, **selectors)])
    late = []
    for number in range(1, 6):
        write_absent(pair)
        fault = pair.fault()
        if fault is None:
            late.append(number)
            pair.tick(0.002)
            fault = pair.fault()
        resolve(pair, fault)
        assert pair.done(0)[1] == 0
    assert late == taken and hits(pair) == [0, len(taken)]


def test_a_lost_resume_leaves_the_fault_open(pair):
    """Mutation: answer with an error, or go on."""
    pair.card.arm([Rule("lose-resume")])
    write_absent(pair)
    fault = pair.fault()
    resolve(pair, fault)
    assert pair.done(0) is None
    faults = conserved(pair)
    assert (faults["open"], faults["resumes_lost"], faults["resumed"]) == (1, 1, 0)
    pair.resume(fault)
    assert pair.done(0)[1] == 0 and pair.card.findings() == []


def test_a_refused_resume_can_be_repeated(pair):
    """Mutation: close the fault all the same."""
    pair.card.arm([Rule("fail-resume", status=0xF, syndrome=0xABCDEF)])
    write_absent(pair)
    fault = pair.fault()
    with pytest.raises(CommandFailed) as caught:
        resolve(pair, fault)
    assert (caught.value.status, caught.value.syndrome) == (0xF, 0xABCDEF)
    assert pair.done(0) is None and conserved(pair)["resumes_refused"] == 1
    pair.resume(fault)
    assert pair.done(0)[1] == 0 and pair.card.findings() == []


def test_late_resume_takes_effect_late_and_a_second_is_a_finding(pair):
    """Mutation: accept it twice; forget it when the timer fires."""
    pair.card.arm([Rule("late-resume", delay_ms=40)])
    write_absent(pair)
    fault = pair.fault()
    resolve(pair, fault)
    assert pair.done(0) is None and conserved(pair)["open"] == 1
    with pytest.raises(CommandFailed):
        pair.resume(fault)
    pair.tick(0.041)
    assert pair.done(0)[1] == 0 and conserved(pair)["resumed"] == 1 and pair.kinds() == ["bad-resume"]


@pytest.mark.parametrize(("region", "end"), [("local", 0), ("remote", 1)])
def test_absent_page_holds_an_operation_until_its_resume(pair, region, end):
    """Mutation: look at the first page only; hold the operation again after its resume."""
    pair.card.arm([Rule("absent-page", region=region, page=2, count=0)])
    for turn in (1, 2):
        pair.send(wqe.RDMA_WRITE, (pair.keys[0], VA, 16384), remote=(pair.keys[1], VA))
        fault = pair.fault()
        assert fault.bytes_committed == 8192 and pair.done(0) is None
        pair.resume(fault)
        assert pair.done(0)[1] == 0 and hits(pair) == [turn]
    assert pair.memory.read(pair.at[1], 16384) == PATTERN[:16384]
    pair.card.arm([Rule("absent-page", region=region, page=2, count=0)])
    pair.send(wqe.RDMA_WRITE, (pair.keys[0], VA, 8192), remote=(pair.keys[1], VA))
    pair.send(wqe.RDMA_WRITE, (pair.keys[0], VA + 12288, 8), remote=(pair.keys[1], VA + 12288))
    assert pair.statuses(0) == [0, 0] and hits(pair) == [0]


def test_a_resume_of_one_side_does_not_release_the_other(pair):
    """Mutation: release all that hold the operation."""
    pair.card.arm([Rule("absent-page", region="local", page=1), Rule("absent-page", region="remote", page=0)])
    pair.send(wqe.RDMA_WRITE, (pair.keys[0], VA, 16384), remote=(pair.keys[1], VA))
    remote = pair.fault()
    assert remote.sub_type == 1
    pair.resume(remote)
    local = pair.fault()
    assert (local.sub_type, local.bytes_committed) == (0, 4096)
    pair.resume(local)
    assert pair.done(0)[1] == 0 and hits(pair) == [1, 1]


def test_absent_page_holds_an_atomic(pair):
    """Mutation: exchange before the page is present."""
    pair.memory.write(pair.at[1], struct.pack("<Q", 5))
    pair.card.arm([Rule("absent-page", region="remote")])
    pair.send(wqe.ATOMIC_FA, (pair.keys[0], VA, 8), remote=(pair.keys[1], VA), atomic=(1, 0))
    fault = pair.fault()
    assert pair.memory.read(pair.at[1], 1) == b"\5"
    pair.resume(fault)
    assert pair.memory.read(pair.at[1], 1) == b"\6" and pair.done(0)[1] == 0


def second_queue(pair):
    """Create another event queue for page faults; return an error's status, or which one gets page faults."""
    first = pair.card.hca.events.queue_for(eqe.PAGE_FAULT).number
    try:
        second, _ = pair.create_eq([eqe.PAGE_FAULT])
    except CommandFailed as failed:
        assert pair.card.hca.events.queue_for(eqe.PAGE_FAULT).number == first
        return failed.status
    mask = {number: pair.command("QUERY_EQ", eq_number=number)["event_bitmask"] for number in (first, second)}
    assert all(bits >> eqe.PAGE_FAULT & 1 for bits in mask.values())
    return {first: "first", second: "second"}[pair.card.hca.events.queue_for(eqe.PAGE_FAULT).number]


@pytest.mark.parametrize(
    "kind, outcome", [(None, "second"), ("first-queue-wins", "first"), ("refuse-second-queue", 5)]
)
def test_two_queues_for_page_faults(pair, kind, outcome):
    """Mutation: look for the rule after the queue is created, or answer QUERY_EQ without its events."""
    pair.card.arm([Rule(kind, status=5, since="start")] if kind else [])
    assert second_queue(pair) == outcome
    assert hits(pair) == ([1] if kind else [])
    assert pair.card.hca.device.findings.reported == []


def test_query_of_a_missing_eq_is_no_finding(pair):
    """Mutation: use ObjectTable.get."""
    with pytest.raises(CommandFailed):
        pair.command("QUERY_EQ", eq_number=200)
    assert pair.card.hca.device.findings.reported == []
