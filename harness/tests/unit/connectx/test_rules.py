"""Every kind of rule, on two QPs of one card: what the driver sees, what the accounts say, what the workload gets."""

import itertools
import struct

import pytest

from harness.connectx.faults.bogus_events import (
    EVENT_ACTIONS,
    NO_KEY,
    NO_QUEUE,
    NO_SUB_TYPE,
    destroyed_object,
)
from harness.connectx.rules.rules import DECISIONS
from harness.errors import UsageError
from harness.tests.unit.connectx.driver import CommandFailed
from harness.tests.unit.connectx.pair import PATTERN, VA, Pair
from harness.values import random_events
from harness.values.rule import KINDS, SELECTORS, Rule, keys_of
from harness.wire import eqe, wqe

TRANSPORT, MEMORY = ("connectx-5", False), ("connectx-7", True)


def make(model="connectx-5", scheme_memory=False):
    pair = Pair(model, scheme_memory=scheme_memory)
    pair.memory.write(pair.at[0], PATTERN)
    return pair


@pytest.fixture
def pair():
    return make()


def write(pair, page=0, size=8):
    """An RDMA write from local page `page`, whose local page is absent."""
    pair.entry(pair.keys[0], page, 0)
    pair.send(wqe.RDMA_WRITE, (pair.keys[0], VA + 4096 * page, size), remote=(pair.keys[1], VA))


def resolve(pair, fault, page=0, end=0):
    pair.entry(pair.keys[end], page, pair.at[end] + 4096 * page | 3)
    pair.resume(fault)


def balanced(pair):
    """What must hold whatever rules did."""
    faults = pair.card.counters()["faults"]
    assert faults["raised"] == sum(faults[name] for name in ("resumed", "failed", "dropped", "open"))
    assert faults["invented"] == sum(faults[f"invented_{name}"] for name in ("resumed", "failed", "open"))
    return faults


def hits(pair):
    return [outcome["hits"] for outcome in pair.card.outcomes()]


def test_every_kind_has_what_does_it():
    """Mutation: forget to mark one."""
    done = set(DECISIONS) | set(EVENT_ACTIONS) | {"absent-page", "destroyed-object"}
    assert done == set(KINDS)
    names = {field for kind in KINDS for field in keys_of(kind)}
    assert names == set(Rule.__dataclass_fields__) and set(SELECTORS) == {k.on for k in KINDS.values()}


def test_arming_refuses_what_makes_no_sense(pair):
    """Mutation: take any dict."""
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
def test_selectors_say_which(pair, selectors, taken):
    """Mutation: count from 0; forget `every`; let a side match all."""
    pair.card.arm([Rule("prefetch-hint"), Rule("delay-event", delay_ms=1, **selectors)])
    late = []
    for number in range(1, 6):
        write(pair)
        fault = pair.fault()
        if fault is None:
            late.append(number)
            pair.tick(0.002)
            fault = pair.fault()
        resolve(pair, fault)
        assert pair.done(0)[1] == 0
    assert late == taken and hits(pair) == [0, len(taken)]


def test_a_delayed_event_comes_late(pair):
    """Mutation: send it at once; send it twice."""
    pair.card.arm([Rule("delay-event", delay_ms=30)])
    write(pair)
    pair.tick(0.029)
    assert pair.fault() is None
    pair.tick(0.002)
    resolve(pair, pair.fault())
    pair.tick(1)
    assert pair.done(0)[1] == 0 and pair.fault() is None
    assert balanced(pair)["events"] == 1


def test_a_delayed_event_of_a_queue_that_ended_does_not_come(pair):
    """Mutation: send it without looking."""
    pair.card.arm([Rule("delay-event", delay_ms=30)])
    write(pair)
    pair.command("2RST_QP", "qp_2rst", qpn=pair.a.number)
    pair.tick(1)
    assert pair.fault() is None
    faults = balanced(pair)
    assert (faults["events"], faults["withheld"], faults["dropped"]) == (0, 1, 1)


def test_a_dropped_event_never_comes(pair):
    """Mutation: count it as told."""
    pair.card.arm([Rule("drop-event")])
    write(pair)
    pair.tick(10)
    assert pair.fault() is None and pair.done(0) is None
    faults = balanced(pair)
    assert (faults["raised"], faults["open"], faults["withheld"], faults["events"]) == (1, 1, 1, 0)
    pair.command("DESTROY_QP", qpn=pair.a.number)
    assert balanced(pair)["dropped"] == 1 and pair.card.findings() == []


def test_a_doubled_event_is_resumed_once(pair):
    """The second resume is refused, and is no finding: it is the card's own doing. Mutation: accept both."""
    pair.card.arm([Rule("double-event")])
    write(pair)
    first, second = pair.fault(), pair.fault()
    assert bytes(first)[:63] == bytes(second)[:63]
    resolve(pair, first)
    with pytest.raises(CommandFailed, match="0x5"):
        pair.resume(second)
    assert pair.done(0)[1] == 0 and pair.card.findings() == []
    faults = balanced(pair)
    assert (faults["raised"], faults["invented"], faults["events"], faults["unknown_resumes"]) == (1, 1, 2, 0)
    assert "1 resumed, refused" in pair.card.outcomes()[0]["text"]
    with pytest.raises(CommandFailed):
        pair.resume(second)
    assert pair.kinds() == ["bad-resume"]


def test_a_reordered_event_is_passed_by_another(pair):
    """Mutation: release it only by its timer; send it before the one that passes."""
    pair.card.arm([Rule("reorder-event", delay_ms=50), Rule("second-fault")])
    write(pair)
    first, second = pair.fault(), pair.fault()
    assert first.token > second.token
    resolve(pair, second)
    pair.resume(first)
    pair.tick(1)
    assert pair.done(0)[1] == 0 and pair.fault() is None and pair.card.findings() == []


def test_an_event_that_nothing_passes_comes_in_the_end(pair):
    """Mutation: wait for ever."""
    pair.card.arm([Rule("reorder-event", delay_ms=50)])
    write(pair)
    assert pair.fault() is None
    pair.tick(0.051)
    resolve(pair, pair.fault())
    assert pair.done(0)[1] == 0


@pytest.mark.parametrize("card", [TRANSPORT, MEMORY])
@pytest.mark.parametrize("side", [0, 1])
def test_a_storm_is_over_the_whole_region_and_answered_one_by_one(card, side):
    """Mutation: give all the same token; take an invented resume for the fault's own."""
    pair = make(*card)
    pair.card.arm([Rule("storm", events=7)])
    pair.entry(pair.keys[side], 1, 0)
    pair.send(wqe.RDMA_WRITE, (pair.keys[0], VA, 16384), remote=(pair.keys[1], VA))
    events = [pair.fault() for _ in range(8)]
    assert len({bytes(event) for event in events}) == 8 and pair.fault() is None
    for event in events[1:]:
        pair.resume(event)
        assert pair.done(0) is None
    pair.resume(events[0], error=0)
    resolve(pair, pair.fault(), 1, side)
    assert pair.done(0)[1] == 0 and pair.card.findings() == []
    faults = balanced(pair)
    assert (faults["raised"], faults["invented"], faults["invented_resumed"], faults["events"]) == (
        2,
        7,
        7,
        9,
    )


def test_a_prefetch_hint_is_of_the_memory_scheme():
    """Mutation: put it into a copy."""
    pair = make(*MEMORY)
    pair.card.arm([Rule("prefetch-hint", pre=5, post=9)])
    write(pair)
    fault = pair.fault()
    assert (fault.pre_pages, fault.post_pages) == (5, 9) and hits(pair) == [1]
    resolve(pair, fault)
    assert pair.done(0)[1] == 0 and balanced(pair)["invented"] == 0


def no_bytes(event, pair):
    return (getattr(event, "op_length", None) or getattr(event, "demand_pages", None) or 0) == 0


MALFORMED = {
    "unknown-sub-type": lambda event, pair: event.sub_type == NO_SUB_TYPE,
    "unknown-queue": lambda event, pair: event.wq == NO_QUEUE,
    "unknown-key": lambda event, pair: NO_KEY in (getattr(event, "r_key", 0), getattr(event, "mkey", 0)),
    "zero-length": no_bytes,
    "huge-length": lambda event, pair: max(dict(event).values()) >= 0xFFFFF,
    "outside-region": lambda event, pair: event.va >= VA + 4 * 4096,
}


@pytest.mark.parametrize("card", [TRANSPORT, MEMORY])
@pytest.mark.parametrize("kind", MALFORMED)
def test_a_malformed_event_comes_beside_the_genuine_one(card, kind):
    """Mutation: send it instead; resume the genuine fault by the answer to it."""
    pair = make(*card)
    pair.card.arm([Rule(kind)])
    write(pair)
    genuine = pair.fault()
    event = pair.event()
    forms = {0: eqe.PageFaultWqeEqe, 1: eqe.PageFaultRdmaEqe, 2: eqe.PageFaultMemoryEqe}
    malformed = forms.get(event.sub_type, eqe.Eqe)(bytearray(bytes(event)))
    assert MALFORMED[kind](malformed, pair), malformed
    if kind not in ("unknown-queue", "unknown-sub-type"):
        pair.resume(malformed, error=1)
        assert pair.done(0) is None and balanced(pair)["invented_failed"] == 1
        assert "1 resumed with error" in pair.card.outcomes()[0]["text"]
    else:
        assert balanced(pair)["invented_open"] == 1
    resolve(pair, genuine)
    assert pair.done(0)[1] == 0 and hits(pair) == [1] and pair.card.findings() == []


DRAWN_NAMES = {
    "queue": ("wq", "token"),
    "type": ("pf_type",),
    "rkey": ("r_key",),
    "key": ("mkey",),
    **{name: (f"{name}_pages",) for name in ("pre", "post", "demand")},
}


def drawn_fields(event, names):
    """The event's fields by the names of values.drawn."""
    found = dict(event)
    found["flags"] = event.data[32]
    if "token_high" in found:
        found["token"] = found["token_high"] << 32 | found["token_low"]
    return {n: next(found[x] for x in DRAWN_NAMES.get(n, (n,)) if x in found) for n in names}


@pytest.mark.parametrize("card", [TRANSPORT, MEMORY, ("connect-ib", False)])
def test_drawn_events_come_before_the_genuine_one_as_they_were_drawn(card):
    """Mutation: swap two fields; draw anew for each fault; send them after it."""
    pair = make(*card)
    pair.card.arm([Rule("drawn-events", events=6, seed=5, count=0)])
    scheme = pair.card.hca.faults.scheme
    expected = random_events.events(scheme, 5)
    for _ in range(2):
        write(pair)
        for form, fields in itertools.islice(expected, 6):
            event = pair.fault()
            assert (random_events.WQE, random_events.RDMA, random_events.MEMORY)[event.sub_type] == form
            assert drawn_fields(event, fields) == fields and random_events.is_drawn(scheme, fields)
            pair.resume(event)
        genuine = pair.fault()
        assert not random_events.is_drawn(scheme, drawn_fields(genuine, [random_events.MARK_BITS[scheme][0]]))
        resolve(pair, genuine)
        assert pair.done(0)[1] == 0 and pair.fault() is None
    faults = balanced(pair)
    assert (faults["invented_resumed"], faults["resumed"], faults["unknown_resumes"]) == (12, 2, 0)
    assert pair.card.findings() == []


def test_events_that_nobody_answers_are_not_kept_for_ever(pair):
    """Mutation: keep them all: a card that is soaked grows. They stay in the account."""
    from harness.connectx.faults.faults import MAX_INJECTED

    pair.card.arm([Rule("unknown-queue", count=0)])
    armed = pair.card.hca.rules._all[0]
    for _ in range(MAX_INJECTED + 50):
        destroyed_object(pair.card.hca.faults, armed, "qp", 0x77)
        pair.seen_events += 1
        pair.uar_write(0x48, struct.pack(">I", pair.eqn << 24 | pair.seen_events & 0xFFFFFF))
    assert len(pair.card.hca.faults._injected) == MAX_INJECTED
    assert balanced(pair)["invented_open"] == MAX_INJECTED + 50 and pair.card.findings() == []


def test_a_stale_token_needs_a_fault_before(pair):
    """Mutation: hit although nothing was ever resumed."""
    pair.card.arm([Rule("stale-token")])
    write(pair)
    first = pair.fault()
    resolve(pair, first)
    assert hits(pair) == [0] and pair.done(0)[1] == 0
    write(pair)
    genuine, stale = pair.fault(), pair.fault()
    assert stale.token == first.token != genuine.token
    with pytest.raises(CommandFailed):
        pair.resume(stale)
    resolve(pair, genuine)
    assert pair.done(0)[1] == 0 and hits(pair) == [1] and pair.card.findings() == []
    balanced(pair)


@pytest.mark.parametrize("card", [TRANSPORT, MEMORY])
def test_events_on_what_was_destroyed(card):
    """Mutation: send it while the object is there."""
    pair = make(*card)
    pair.card.arm(
        [
            Rule("destroyed-object", object="qp", since="start"),
            Rule("destroyed-object", object="mkey", since="start"),
        ]
    )
    pair.command("DESTROY_QP", qpn=pair.a.number)
    assert pair.fault().wq == pair.a.number
    pair.command("DESTROY_MKEY", mkey_index=pair.keys[1] >> 8)
    event = pair.fault()
    assert getattr(event, "mkey", getattr(event, "r_key", 0)) == pair.keys[1]
    pair.resume(event, error=1)
    assert hits(pair) == [1, 1] and balanced(pair)["invented_open"] == 1 and pair.card.findings() == []


def test_a_lost_resume_leaves_the_fault_open(pair):
    """Mutation: answer with an error, or go on."""
    pair.card.arm([Rule("lose-resume")])
    write(pair)
    fault = pair.fault()
    resolve(pair, fault)
    assert pair.done(0) is None
    faults = balanced(pair)
    assert (faults["open"], faults["resumes_lost"], faults["resumed"]) == (1, 1, 0)
    pair.resume(fault)
    assert pair.done(0)[1] == 0 and pair.card.findings() == []


def test_a_refused_resume_can_be_tried_again(pair):
    """Mutation: close the fault all the same."""
    pair.card.arm([Rule("fail-resume", status=0xF, syndrome=0xABCDEF)])
    write(pair)
    fault = pair.fault()
    with pytest.raises(CommandFailed) as caught:
        resolve(pair, fault)
    assert (caught.value.status, caught.value.syndrome) == (0xF, 0xABCDEF)
    assert pair.done(0) is None and balanced(pair)["resumes_refused"] == 1
    pair.resume(fault)
    assert pair.done(0)[1] == 0 and pair.card.findings() == []


def test_a_late_resume_goes_on_later_and_a_second_is_found(pair):
    """Mutation: accept it twice; forget it when time has come."""
    pair.card.arm([Rule("late-resume", delay_ms=40)])
    write(pair)
    fault = pair.fault()
    resolve(pair, fault)
    assert pair.done(0) is None and balanced(pair)["open"] == 1
    with pytest.raises(CommandFailed):
        pair.resume(fault)
    pair.tick(0.041)
    assert pair.done(0)[1] == 0 and balanced(pair)["resumed"] == 1 and pair.kinds() == ["bad-resume"]


@pytest.mark.parametrize(("region", "end"), [("local", 0), ("remote", 1)])
def test_a_present_page_is_absent_until_resumed(pair, region, end):
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
    far = pair.fault()
    assert far.sub_type == 1
    pair.resume(far)
    near = pair.fault()
    assert (near.sub_type, near.bytes_committed) == (0, 4096)
    pair.resume(near)
    assert pair.done(0)[1] == 0 and hits(pair) == [1, 1]


def test_a_rule_page_of_an_atomic(pair):
    """Mutation: exchange before the page is there."""
    pair.memory.write(pair.at[1], struct.pack("<Q", 5))
    pair.card.arm([Rule("absent-page", region="remote")])
    pair.send(wqe.ATOMIC_FA, (pair.keys[0], VA, 8), remote=(pair.keys[1], VA), atomic=(1, 0))
    fault = pair.fault()
    assert pair.memory.read(pair.at[1], 1) == b"\5"
    pair.resume(fault)
    assert pair.memory.read(pair.at[1], 1) == b"\6" and pair.done(0)[1] == 0


def test_a_reset_forgets_what_rules_hold_back(pair):
    """Mutation: keep the event for the next driver."""
    pair.card.arm([Rule("reorder-event", delay_ms=50)])
    write(pair)
    pair.card.reset()
    pair.tick(1)
    assert pair.fault() is None
    faults = balanced(pair)
    assert (faults["withheld"], faults["dropped"], faults["events"]) == (1, 1, 0)


def second_queue(pair):
    """Another event queue for page faults; an error's status, or who gets page faults now: first or second."""
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
    """Mutation: look for the rule after the queue is made, or answer QUERY_EQ without its events."""
    pair.card.arm([Rule(kind, status=5, since="start")] if kind else [])
    assert second_queue(pair) == outcome
    assert hits(pair) == ([1] if kind else [])
    assert pair.card.hca.device.findings.reported == []


def test_asking_for_a_queue_that_is_not_there_is_no_finding(pair):
    """Mutation: use ObjectTable.get."""
    with pytest.raises(CommandFailed):
        pair.command("QUERY_EQ", eq_number=200)
    assert pair.card.hca.device.findings.reported == []
