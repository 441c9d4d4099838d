"""Events that no page fault made: copies, second faults, storms, and events that make no sense.

A forger gets the card, its rule and the event that is about to go out (`Telling`), adds events that go out
after it, and says what it did; nothing when it could not. The genuine fault stays as it is: whatever a forged
event does to the driver, the workload's own faults are to be resolved.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from harness.values import random_events
from harness.wire import eqe, y2015

if TYPE_CHECKING:
    from harness.connectx.faults.fault_events import PendingEvent
    from harness.connectx.hca import Hca
    from harness.connectx.rules.armed_rule import Armed
    from harness.wire.bits import Struct

NO_QUEUE, NO_KEY = 0xFFFFF0, 0xFFFFF033
"""Numbers that no card gives out: beyond judge.LIMITS."""

NO_SUB_TYPE = 0x7F
HUGE_BYTES, HUGE_PAGES = 0xFFFFFFFF, 0xFFFFF
PAGE = 4096

FORGERS: dict[str, Callable[..., str]] = {}


def forges(kind: str) -> Callable[[Callable[..., str]], Callable[..., str]]:
    """Mark a function as what rules of that kind do."""

    def mark(function: Callable[..., str]) -> Callable[..., str]:
        FORGERS[kind] = function
        return function

    return mark


@forges("double-event")
def double(hca: Hca, armed: Armed, telling: PendingEvent) -> str:
    """The same event again: the first resume ends the fault, each further one names nothing and is refused."""
    for _ in range(armed.rule.events):
        telling.forge(armed, telling.event, telling.sub_type, telling.fault.key, refuse=True)
    return f"{telling.fault}: told {armed.rule.events + 1} times"


@forges("second-fault")
def second(hca: Hca, armed: Armed, telling: PendingEvent) -> str:
    """Another fault on the same page, as another queue would have it."""
    if hca.faults.scheme == "2015":
        return ""
    _again(hca, armed, telling)
    return f"{telling.fault}: a second one on its page"


@forges("storm")
def storm(hca: Hca, armed: Armed, telling: PendingEvent) -> str:
    """Many faults at once, spread over the region (by key) or over the work request (by queue)."""
    if hca.faults.scheme == "2015":
        return ""
    key, length = telling.absent.key, telling.operation.length
    start = key.fields["start_addr"] & ~(PAGE - 1)
    pages = max(key.fields["len"] // PAGE, 1)
    for number in range(armed.rule.events):
        va = start + number % pages * PAGE
        if telling.sub_type == eqe.PAGE_FAULT_WQE:
            _again(hca, armed, telling, bytes_committed=number * PAGE % max(length, 1))
        elif telling.sub_type == eqe.PAGE_FAULT_RDMA:
            inside = max(va, key.fields["start_addr"])
            _again(hca, armed, telling, bytes_committed=0, va=inside, op_length=8, packet_length=8)
        else:
            _again(hca, armed, telling, va=va, demand_pages=1)
    return f"{telling.fault}: {armed.rule.events} more"


@forges("prefetch-hint")
def prefetch(hca: Hca, armed: Armed, telling: PendingEvent) -> str:
    """The genuine event asks for pages around the one that is needed; only the memory scheme can."""
    event = telling.event
    if not isinstance(event, eqe.PageFaultMemoryEqe):
        return ""
    event.pre_pages, event.post_pages = armed.rule.pre, armed.rule.post
    return f"{telling.fault}: {armed.rule.pre} pages before, {armed.rule.post} behind"


@forges("drawn-events")
def drawn_events(hca: Hca, armed: Armed, telling: PendingEvent) -> str:
    """They go out before the genuine one, and each may be resumed once by what names it."""
    scheme = hca.faults.scheme
    for _ in range(armed.rule.events):
        form, fields = armed.drawn(scheme)
        event, sub_type, key = _drawn(scheme, form, fields)
        hca.faults.forge(armed, event, sub_type, key)
    return f"{telling.fault}: {armed.rule.events} events before"


@forges("unknown-sub-type")
def unknown_sub_type(hca: Hca, armed: Armed, telling: PendingEvent) -> str:
    """The rest of the event is that of the genuine one, with a token of its own."""
    if hca.faults.scheme == "2015":
        return ""
    token = hca.faults.token()
    telling.forge(armed, _copy(telling.event, token), NO_SUB_TYPE, token)
    return f"{telling.fault}: another event, token {token:#x}, of sub-type {NO_SUB_TYPE:#x}"


@forges("unknown-queue")
def unknown_queue(hca: Hca, armed: Armed, telling: PendingEvent) -> str:
    """By queue number, in every scheme."""
    token = hca.faults.token()
    telling.forge(armed, _of_queue(token, NO_QUEUE), eqe.PAGE_FAULT_WQE, token)
    return f"an event on queue {NO_QUEUE:#x}, token {token:#x}"


@forges("unknown-key")
def unknown_key(hca: Hca, armed: Armed, telling: PendingEvent) -> str:
    """By key, in the scheme's own form."""
    return _keyed(hca, armed, telling, NO_KEY, telling.absent.va, PAGE)


@forges("stale-token")
def stale_token(hca: Hca, armed: Armed, telling: PendingEvent) -> str:
    """The genuine event once more, under the token of the last fault that was resumed: refused on resume."""
    token = hca.faults.last_closed
    if token is None or hca.faults.scheme == "2015":
        return ""
    telling.forge(armed, _copy(telling.event, token), telling.sub_type, token, refuse=True)
    return f"{telling.fault}: told again with token {token:#x}"


@forges("zero-length")
def zero_length(hca: Hca, armed: Armed, telling: PendingEvent) -> str:
    """Nothing is wanted of a key that is there."""
    return _keyed(hca, armed, telling, telling.absent.key.value, telling.absent.va, 0)


@forges("huge-length")
def huge_length(hca: Hca, armed: Armed, telling: PendingEvent) -> str:
    """Four gigabytes are wanted of a key that has less."""
    return _keyed(hca, armed, telling, telling.absent.key.value, telling.absent.va, HUGE_BYTES)


@forges("outside-region")
def outside_region(hca: Hca, armed: Armed, telling: PendingEvent) -> str:
    """A page is wanted some pages behind the end of a key."""
    fields = telling.absent.key.fields
    va = fields["start_addr"] + fields["len"] + 3 * PAGE
    return _keyed(hca, armed, telling, telling.absent.key.value, va, PAGE)


@forges("destroyed-object")
def destroyed_object(hca: Hca, armed: Armed, kind: str, number: int) -> str:
    """An event that was on its way when its QP or key ended."""
    token = hca.faults.token()
    if kind == "qp":
        event, sub_type = _of_queue(token, number), eqe.PAGE_FAULT_WQE
    else:
        event, sub_type = _of_key(hca, token, number, 0, PAGE)
    hca.faults.forge(armed, event, sub_type, token)
    return f"an event on {kind} {number:#x}, token {token:#x}"


def _again(hca: Hca, armed: Armed, telling: PendingEvent, **fields: int) -> None:
    """The genuine event once more with a token of its own and these fields."""
    token = hca.faults.token()
    telling.forge(armed, _copy(telling.event, token, **fields), telling.sub_type, token)


def _keyed(hca: Hca, armed: Armed, telling: PendingEvent, key: int, va: int, size: int) -> str:
    token = hca.faults.token()
    event, sub_type = _of_key(hca, token, key, va, size)
    telling.forge(armed, event, sub_type, token)
    return f"an event on {size:#x} bytes at {va:#x} of key {key:#x}, token {token:#x}"


def _copy(event: Struct, token: int, **fields: int) -> Struct:
    copy = type(event)(bytearray(event.data))
    if isinstance(copy, eqe.PageFaultMemoryEqe):
        fields.update(token_high=token >> 32, token_low=token & 0xFFFFFFFF)
    else:
        fields.update(token=token)
    for name, value in fields.items():
        setattr(copy, name, value)
    return copy


def _drawn(scheme: str, form: str, fields: dict[str, int]) -> tuple[Struct, int, int]:
    """An event with these fields, its sub-type, and what a resume of it names. Ref: values.drawn"""
    if form == random_events.MEMORY:
        event: Struct = eqe.PageFaultMemoryEqe.new(
            token_high=fields["token"] >> 32,
            token_low=fields["token"] & 0xFFFFFFFF,
            mkey=fields["key"],
            va=fields["va"],
            **{f"{name}_pages": fields[name] for name in ("demand", "pre", "post")},
        )
        event.data[eqe.DATA] = fields["flags"]
        return event, eqe.PAGE_FAULT_MEMORY, fields["token"]
    names = fields["queue"] if scheme == "2015" else fields["token"]
    key = fields["type"] << y2015.QPN_BITS | names if scheme == "2015" else names
    common = {name: fields[name] for name in ("bytes_committed", "packet_length")}
    if form == random_events.RDMA:
        event = eqe.PageFaultRdmaEqe.new(
            r_key=fields["rkey"],
            op_length=fields["op_length"],
            va=fields["va"],
            pf_type=fields["type"],
            token=names,
            **common,
        )
        return event, eqe.PAGE_FAULT_RDMA, key
    event = eqe.PageFaultWqeEqe.new(
        wqe_index=fields["wqe_index"],
        pf_type=fields["type"],
        wq=fields["queue"],
        token=fields.get("token", 0),
        **common,
    )
    return event, eqe.PAGE_FAULT_WQE, key


def _of_queue(token: int, number: int) -> Struct:
    return eqe.PageFaultWqeEqe.new(
        token=token, pf_type=eqe.FAULT_REQUESTER_SEND_WRITE, wq=number, packet_length=PAGE
    )


def _of_key(hca: Hca, token: int, key: int, va: int, size: int) -> tuple[Any, int]:
    """An event by key, in the form of the scheme: its structure and its sub-type."""
    if hca.faults.scheme == "memory":
        event: Struct = eqe.PageFaultMemoryEqe.new(
            last=1,
            token_high=token >> 32,
            token_low=token & 0xFFFFFFFF,
            demand_pages=min((size + PAGE - 1) // PAGE, HUGE_PAGES),
            mkey=key,
            va=va & ~(PAGE - 1),
        )
        return event, eqe.PAGE_FAULT_MEMORY
    event = eqe.PageFaultRdmaEqe.new(
        r_key=key,
        packet_length=min(size, PAGE),
        op_length=size,
        va=va,
        pf_type=eqe.FAULT_RDMA_WRITE,
        token=token,
    )
    return event, eqe.PAGE_FAULT_RDMA
