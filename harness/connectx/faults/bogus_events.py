"""Actions of injection rules on page-fault events: hold back, delay, copy, and events that no fault raised.

An action gets the card's faults, its rule and the event that is about to be sent, adds events that are sent after
it, and returns a note; an empty one when it could not act. The genuine fault stays as it is: whatever an injected
event does to the driver, the workload's own faults are to be resolved.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from harness.connectx.faults.fault_events import PendingEvent
from harness.connectx.rules.armed_rule import ArmedRule
from harness.values import random_events
from harness.wire import eqe, y2015
from harness.wire.bits import Struct

NO_QUEUE, NO_KEY = 0xFFFFF0, 0xFFFFF033
"""Numbers beyond object_table.LIMITS, which the card never allocates."""

NO_SUB_TYPE = 0x7F
HUGE_BYTES, HUGE_PAGES = 0xFFFFFFFF, 0xFFFFF
PAGE = 4096


class Injector(Protocol):
    """A card's faults as an action sees them; `faults.Faults` is one."""

    last_closed: int | None

    @property
    def scheme(self) -> str:
        """Scheme in use: 2015, transport or memory."""

    def token(self) -> int:
        """Return a free token."""

    def inject(self, armed: ArmedRule, event: Struct, sub_type: int, key: int, refuse: bool = False) -> None:
        """Send an event that belongs to no fault."""


Action = Callable[[Injector, ArmedRule, PendingEvent], str]

EVENT_ACTIONS: dict[str, Action] = {}


def acts(kind: str) -> Callable[[Action], Action]:
    """Mark a function as the action of rules of that kind."""

    def mark(function: Action) -> Action:
        EVENT_ACTIONS[kind] = function
        return function

    return mark


@acts("delay-event")
def delay_event(faults: Injector, armed: ArmedRule, pending: PendingEvent) -> str:
    """Send it later."""
    pending.delay_s += armed.rule.delay_ms / 1000
    return f"{pending.fault}: {armed.rule.delay_ms} ms late"


@acts("drop-event")
def drop_event(faults: Injector, armed: ArmedRule, pending: PendingEvent) -> str:
    """Never send it."""
    pending.withheld = True
    return f"{pending.fault}: event dropped"


@acts("reorder-event")
def reorder_event(faults: Injector, armed: ArmedRule, pending: PendingEvent) -> str:
    """Send it after the next event, or after the delay."""
    pending.delay_s += armed.rule.delay_ms / 1000
    pending.overtakable = True
    return f"{pending.fault}: waits until another event overtakes it"


@acts("double-event")
def double_event(faults: Injector, armed: ArmedRule, pending: PendingEvent) -> str:
    """Send the same event again: the first resume ends the fault, each further one is refused."""
    for _ in range(armed.rule.events):
        pending.inject(armed, pending.event, pending.sub_type, pending.fault.key, refuse=True)
    return f"{pending.fault}: sent {armed.rule.events + 1} times"


@acts("second-fault")
def second_fault(faults: Injector, armed: ArmedRule, pending: PendingEvent) -> str:
    """Send another fault on the same page, as another queue would raise it."""
    if faults.scheme == "2015":
        return ""
    _again(faults, armed, pending)
    return f"{pending.fault}: a second one on its page"


@acts("storm")
def storm(faults: Injector, armed: ArmedRule, pending: PendingEvent) -> str:
    """Send many faults at once, spread over the region (by key) or over the work request (by queue)."""
    if faults.scheme == "2015":
        return ""
    key, length = pending.absent.key, pending.operation.length
    start = key.fields["start_addr"] & ~(PAGE - 1)
    pages = max(key.fields["len"] // PAGE, 1)
    for number in range(armed.rule.events):
        va = start + number % pages * PAGE
        if pending.sub_type == eqe.PAGE_FAULT_WQE:
            _again(faults, armed, pending, bytes_committed=number * PAGE % max(length, 1))
        elif pending.sub_type == eqe.PAGE_FAULT_RDMA:
            inside = max(va, key.fields["start_addr"])
            _again(faults, armed, pending, bytes_committed=0, va=inside, op_length=8, packet_length=8)
        else:
            _again(faults, armed, pending, va=va, demand_pages=1)
    return f"{pending.fault}: {armed.rule.events} more"


@acts("prefetch-hint")
def prefetch_hint(faults: Injector, armed: ArmedRule, pending: PendingEvent) -> str:
    """Ask for pages around the one that is needed in the genuine event; only the memory scheme can."""
    event = pending.event
    if not isinstance(event, eqe.PageFaultMemoryEqe):
        return ""
    event.pre_pages, event.post_pages = armed.rule.pre, armed.rule.post
    return f"{pending.fault}: {armed.rule.pre} pages before, {armed.rule.post} behind"


@acts("drawn-events")
def drawn_events(faults: Injector, armed: ArmedRule, pending: PendingEvent) -> str:
    """Send events with random fields before the genuine one; each may be resumed once by what names it."""
    scheme = faults.scheme
    for _ in range(armed.rule.events):
        form, fields = armed.drawn(scheme)
        event, sub_type, key = _drawn(scheme, form, fields)
        faults.inject(armed, event, sub_type, key)
    return f"{pending.fault}: {armed.rule.events} events before"


@acts("unknown-sub-type")
def unknown_sub_type(faults: Injector, armed: ArmedRule, pending: PendingEvent) -> str:
    """Send a copy with an unknown sub-type and its own token."""
    if faults.scheme == "2015":
        return ""
    token = faults.token()
    pending.inject(armed, _copy(pending.event, token), NO_SUB_TYPE, token)
    return f"{pending.fault}: another event, token {token:#x}, of sub-type {NO_SUB_TYPE:#x}"


@acts("unknown-queue")
def unknown_queue(faults: Injector, armed: ArmedRule, pending: PendingEvent) -> str:
    """Send an event on a queue number that does not exist, in every scheme."""
    token = faults.token()
    pending.inject(armed, _of_queue(token, NO_QUEUE), eqe.PAGE_FAULT_WQE, token)
    return f"an event on queue {NO_QUEUE:#x}, token {token:#x}"


@acts("unknown-key")
def unknown_key(faults: Injector, armed: ArmedRule, pending: PendingEvent) -> str:
    """Send an event on a key that does not exist, in the scheme's own form."""
    return _keyed(faults, armed, pending, NO_KEY, pending.absent.va, PAGE)


@acts("stale-token")
def stale_token(faults: Injector, armed: ArmedRule, pending: PendingEvent) -> str:
    """Send a copy with the token of the last fault that ended; its resume is refused."""
    token = faults.last_closed
    if token is None or faults.scheme == "2015":
        return ""
    pending.inject(armed, _copy(pending.event, token), pending.sub_type, token, refuse=True)
    return f"{pending.fault}: sent again with token {token:#x}"


@acts("zero-length")
def zero_length(faults: Injector, armed: ArmedRule, pending: PendingEvent) -> str:
    """Send an event on 0 bytes of an existing key."""
    return _keyed(faults, armed, pending, pending.absent.key.value, pending.absent.va, 0)


@acts("huge-length")
def huge_length(faults: Injector, armed: ArmedRule, pending: PendingEvent) -> str:
    """Send an event on four gigabytes of a key that has less."""
    return _keyed(faults, armed, pending, pending.absent.key.value, pending.absent.va, HUGE_BYTES)


@acts("outside-region")
def outside_region(faults: Injector, armed: ArmedRule, pending: PendingEvent) -> str:
    """Send an event on a page behind the end of a key."""
    fields = pending.absent.key.fields
    va = fields["start_addr"] + fields["len"] + 3 * PAGE
    return _keyed(faults, armed, pending, pending.absent.key.value, va, PAGE)


def destroyed_object(faults: Injector, armed: ArmedRule, kind: str, number: int) -> str:
    """Send an event on a QP (by number) or key (by value) that has just been destroyed, as if it had been in flight."""
    token = faults.token()
    if kind == "qp":
        event, sub_type = _of_queue(token, number), eqe.PAGE_FAULT_WQE
    else:
        event, sub_type = _of_key(faults, token, number, 0, PAGE)
    faults.inject(armed, event, sub_type, token)
    return f"an event on {kind} {number:#x}, token {token:#x}"


def _again(faults: Injector, armed: ArmedRule, pending: PendingEvent, **fields: int) -> None:
    """Send a copy with its own token and these fields."""
    token = faults.token()
    pending.inject(armed, _copy(pending.event, token, **fields), pending.sub_type, token)


def _keyed(faults: Injector, armed: ArmedRule, pending: PendingEvent, key: int, va: int, size: int) -> str:
    token = faults.token()
    event, sub_type = _of_key(faults, token, key, va, size)
    pending.inject(armed, event, sub_type, token)
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
    """Build an event with these fields; return it, its sub-type, and what a resume of it names."""
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


def _of_key(faults: Injector, token: int, key: int, va: int, size: int) -> tuple[Struct, int]:
    """Build an event by key, in the form of the scheme; return it and its sub-type."""
    if faults.scheme == "memory":
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
