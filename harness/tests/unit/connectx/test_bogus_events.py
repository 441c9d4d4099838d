"""Rules on page-fault events, on two QPs of one card: events, conservation check, completions."""

import itertools
import struct

import pytest

from harness.connectx.faults.bogus_events import (
    NO_KEY,
    NO_QUEUE,
    NO_SUB_TYPE,
    destroyed_object,
)
from harness.tests.unit.connectx.driver import CommandFailed
from harness.tests.unit.connectx.pair import VA, conserved, filled, hits, resolve, write_absent
from harness.values import random_events
from harness.values.rule import Rule
from harness.wire import eqe, wqe

TRANSPORT, MEMORY = ("connectx-5", False), ("connectx-7", True)


def test_delay_event_sends_it_late(pair):
    """Mutation: send it at once; send it twice."""
    pair.card.arm([Rule("delay-event", delay_ms=30)])
    write_absent(pair)
    pair.tick(0.029)
    assert pair.fault() is None
    pair.tick(0.002)
    resolve(pair, pair.fault())
    pair.tick(1)
    assert pair.done(0)[1] == 0 and pair.fault() is None
    assert conserved(pair)["events"] == 1


def test_a_delayed_event_of_a_destroyed_queue_is_not_sent(pair):
    """Mutation: send it without looking."""
    pair.card.arm([Rule("delay-event", delay_ms=30)])
    write_absent(pair)
    pair.command("2RST_QP", "qp_2rst", qpn=pair.a.number)
    pair.tick(1)
    assert pair.fault() is None
    faults = conserved(pair)
    assert (faults["events"], faults["withheld"], faults["dropped"]) == (0, 1, 1)


def test_drop_event_withholds_it(pair):
    """Mutation: count it as sent."""
    pair.card.arm([Rule("drop-event")])
    write_absent(pair)
    pair.tick(10)
    assert pair.fault() is None and pair.done(0) is None
    faults = conserved(pair)
    assert (faults["raised"], faults["open"], faults["withheld"], faults["events"]) == (1, 1, 1, 0)
    pair.command("DESTROY_QP", qpn=pair.a.number)
    assert conserved(pair)["dropped"] == 1 and pair.card.findings() == []


def test_double_event_is_resumed_once(pair):
    """The second resume is refused, and is no finding: the card itself sent the event. Mutation: accept both."""
    pair.card.arm([Rule("double-event")])
    write_absent(pair)
    first, second = pair.fault(), pair.fault()
    assert bytes(first)[:63] == bytes(second)[:63]
    resolve(pair, first)
    with pytest.raises(CommandFailed, match="0x5"):
        pair.resume(second)
    assert pair.done(0)[1] == 0 and pair.card.findings() == []
    faults = conserved(pair)
    assert (faults["raised"], faults["injected"], faults["events"], faults["unknown_resumes"]) == (1, 1, 2, 0)
    assert "1 resumed, refused" in pair.card.outcomes()[0]["text"]
    with pytest.raises(CommandFailed):
        pair.resume(second)
    assert pair.kinds() == ["bad-resume"]


def test_reorder_event_sends_it_after_the_next(pair):
    """Mutation: send it only by its timer; send it before the next one."""
    pair.card.arm([Rule("reorder-event", delay_ms=50), Rule("second-fault")])
    write_absent(pair)
    first, second = pair.fault(), pair.fault()
    assert first.token > second.token
    resolve(pair, second)
    pair.resume(first)
    pair.tick(1)
    assert pair.done(0)[1] == 0 and pair.fault() is None and pair.card.findings() == []


def test_reorder_event_sends_it_by_its_timer(pair):
    """Mutation: wait for ever."""
    pair.card.arm([Rule("reorder-event", delay_ms=50)])
    write_absent(pair)
    assert pair.fault() is None
    pair.tick(0.051)
    resolve(pair, pair.fault())
    assert pair.done(0)[1] == 0


@pytest.mark.parametrize("card", [TRANSPORT, MEMORY])
@pytest.mark.parametrize("side", [0, 1])
def test_storm_covers_the_region_and_each_event_is_resumed(card, side):
    """Mutation: give all the same token; take a resume of an injected event for the fault's own."""
    pair = filled(*card)
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
    faults = conserved(pair)
    assert (faults["raised"], faults["injected"], faults["injected_resumed"], faults["events"]) == (
        2,
        7,
        7,
        9,
    )


def test_prefetch_hint_needs_the_memory_scheme():
    """Mutation: put it into a copy."""
    pair = filled(*MEMORY)
    pair.card.arm([Rule("prefetch-hint", pre=5, post=9)])
    write_absent(pair)
    fault = pair.fault()
    assert (fault.pre_pages, fault.post_pages) == (5, 9) and hits(pair) == [1]
    resolve(pair, fault)
    assert pair.done(0)[1] == 0 and conserved(pair)["injected"] == 0


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
def test_a_malformed_event_is_sent_besides_the_genuine_one(card, kind):
    """Mutation: send it instead; resume the genuine fault by the answer to it."""
    pair = filled(*card)
    pair.card.arm([Rule(kind)])
    write_absent(pair)
    genuine = pair.fault()
    event = pair.event()
    forms = {0: eqe.PageFaultWqeEqe, 1: eqe.PageFaultRdmaEqe, 2: eqe.PageFaultMemoryEqe}
    malformed = forms.get(event.sub_type, eqe.Eqe)(bytearray(bytes(event)))
    assert MALFORMED[kind](malformed, pair), malformed
    if kind not in ("unknown-queue", "unknown-sub-type"):
        pair.resume(malformed, error=1)
        assert pair.done(0) is None and conserved(pair)["injected_failed"] == 1
        assert "1 resumed with error" in pair.card.outcomes()[0]["text"]
    else:
        assert conserved(pair)["injected_open"] == 1
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
    """Return the event's fields by the names of values.random_events."""
    members = dict(event)
    members["flags"] = event.data[32]
    if "token_high" in members:
        members["token"] = members["token_high"] << 32 | members["token_low"]
    return {n: next(members[x] for x in DRAWN_NAMES.get(n, (n,)) if x in members) for n in names}


@pytest.mark.parametrize("card", [TRANSPORT, MEMORY, ("connect-ib", False)])
def test_drawn_events_precede_the_genuine_one_with_their_fields(card):
    """Mutation: swap two fields; restart the random sequence for each fault; send them after it."""
    pair = filled(*card)
    pair.card.arm([Rule("drawn-events", events=6, seed=5, count=0)])
    scheme = pair.card.hca.faults.scheme
    expected = random_events.events(scheme, 5)
    for _ in range(2):
        write_absent(pair)
        for form, fields in itertools.islice(expected, 6):
            event = pair.fault()
            assert (random_events.WQE, random_events.RDMA, random_events.MEMORY)[event.sub_type] == form
            assert drawn_fields(event, fields) == fields and random_events.is_drawn(scheme, fields)
            pair.resume(event)
        genuine = pair.fault()
        assert not random_events.is_drawn(scheme, drawn_fields(genuine, [random_events.MARK_BITS[scheme][0]]))
        resolve(pair, genuine)
        assert pair.done(0)[1] == 0 and pair.fault() is None
    faults = conserved(pair)
    assert (faults["injected_resumed"], faults["resumed"], faults["unknown_resumes"]) == (12, 2, 0)
    assert pair.card.findings() == []


def test_injected_events_without_a_resume_are_forgotten_in_the_end(pair):
    """Mutation: keep them all: a card grows in a soak. The counters still have them."""
    from harness.connectx.faults.faults import MAX_INJECTED

    pair.card.arm([Rule("unknown-queue", count=0)])
    armed = pair.card.hca.rules._all[0]
    for _ in range(MAX_INJECTED + 50):
        destroyed_object(pair.card.hca.faults, armed, "qp", 0x77)
        pair.seen_events += 1
        pair.uar_write(0x48, struct.pack(">I", pair.eqn << 24 | pair.seen_events & 0xFFFFFF))
    assert len(pair.card.hca.faults._injected) == MAX_INJECTED
    assert conserved(pair)["injected_open"] == MAX_INJECTED + 50 and pair.card.findings() == []


def test_stale_token_needs_an_earlier_fault(pair):
    """Mutation: hit although nothing was ever resumed."""
    pair.card.arm([Rule("stale-token")])
    write_absent(pair)
    first = pair.fault()
    resolve(pair, first)
    assert hits(pair) == [0] and pair.done(0)[1] == 0
    write_absent(pair)
    genuine, stale = pair.fault(), pair.fault()
    assert stale.token == first.token != genuine.token
    with pytest.raises(CommandFailed):
        pair.resume(stale)
    resolve(pair, genuine)
    assert pair.done(0)[1] == 0 and hits(pair) == [1] and pair.card.findings() == []
    conserved(pair)


@pytest.mark.parametrize("card", [TRANSPORT, MEMORY])
def test_events_on_a_destroyed_object(card):
    """Mutation: send it while the object exists."""
    pair = filled(*card)
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
    assert hits(pair) == [1, 1] and conserved(pair)["injected_open"] == 1 and pair.card.findings() == []


def test_reset_drops_delayed_events(pair):
    """Mutation: keep the event for the next driver."""
    pair.card.arm([Rule("reorder-event", delay_ms=50)])
    write_absent(pair)
    pair.card.reset()
    pair.tick(1)
    assert pair.fault() is None
    faults = conserved(pair)
    assert (faults["withheld"], faults["dropped"], faults["events"]) == (1, 1, 0)
