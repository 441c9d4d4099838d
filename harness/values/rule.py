"""A rule: what an emulated card shall do that a real one cannot be told to do.

Plans state rules as `[[rules]]`, tests as `Rule(...)`; a card is armed with them before a case starts and says
afterwards, in an `Outcome` each, what they did. `KINDS` has every kind with the keys that it takes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Dict, NamedTuple, Tuple

EVENT_SIDES = ("", "requester", "receiver", "rdma")
REGION_SIDES = ("", "local", "remote")
LISTS = ("", "map", "zap", "context")
OBJECTS = ("", "qp", "mkey")
SINCE = ("start", "user", "connected")
"""When a rule on commands and UMRs begins to count: at once (the driver's own probe included), once a user makes
its first CQ, or once a user's QP is ready to send."""


@dataclass(frozen=True)
class Rule:
    """One rule. It looks at things of one sort (page faults, resumes, accesses, UMRs, commands, ends of objects).

    Which of those that match the selectors (`side`, `region` and `page`, `umr`, `opcode`, `object`) it acts on:
    the `nth` (from 1), then each `every`-th, `count` times in all (0: without end); with `percent` below 100 a
    draw decides, from `seed`. The numbers: `delay_ms`; `events` invented at a time; `status` and `syndrome` of
    a refused command or completion; `pages` absent; `pre` and `post` pages of a hint. A rule that never acted
    fails its case unless it is `optional`.
    """

    kind: str
    nth: int = 1
    every: int = 1
    count: int = 1
    percent: int = 100
    seed: int = 0
    side: str = ""
    region: str = ""
    page: int = 0
    pages: int = 1
    umr: str = ""
    opcode: str = ""
    object: str = ""
    since: str = "connected"
    delay_ms: int = 20
    events: int = 1
    status: int = 1
    syndrome: int = 0
    pre: int = 0
    post: int = 0
    optional: bool = False


@dataclass(frozen=True)
class Outcome:
    """What a rule did: `matches` things that its selectors matched, `hits` on which it acted, `text` for people."""

    kind: str
    matches: int = 0
    hits: int = 0
    text: str = ""
    optional: bool = False


class Kind(NamedTuple):
    """A kind of rule: what it looks at (a key of SELECTORS), the numbers it takes, and what it does."""

    on: str
    numbers: Tuple[str, ...]
    text: str


COMMON = ("kind", "nth", "every", "count", "percent", "seed", "optional")
SELECTORS: Dict[str, Tuple[str, ...]] = {
    "event": ("side",),
    "resume": ("side",),
    "access": ("region", "page"),
    "umr": ("umr", "since"),
    "command": ("opcode", "since"),
    "gone": ("object", "since"),
    "queue": (),
}

KINDS: Dict[str, Kind] = {
    "absent-page": Kind(
        "access", ("pages",), "pages of a region are absent until a resume, though the translation has them"
    ),
    "delay-event": Kind("event", ("delay_ms",), "the event of a fault comes late"),
    "drop-event": Kind("event", (), "the event of a fault never comes"),
    "double-event": Kind("event", ("events",), "the event of a fault comes again, the same token"),
    "reorder-event": Kind(
        "event", ("delay_ms",), "the event of a fault waits until another has passed it, or for delay_ms"
    ),
    "second-fault": Kind("event", (), "a second fault on the same page comes before the first is resolved"),
    "storm": Kind("event", ("events",), "a fault brings many others over the same region or work request"),
    "prefetch-hint": Kind(
        "event", ("pre", "post"), "the event hints at pages before and behind (memory scheme)"
    ),
    "drawn-events": Kind("event", ("events",), "before the event of a fault come others with random fields"),
    "unknown-sub-type": Kind("event", (), "an event of a sub-type that nobody knows"),
    "unknown-queue": Kind("event", (), "an event on a queue that never was"),
    "unknown-key": Kind("event", (), "an event on a key that never was"),
    "stale-token": Kind("event", (), "an event with the token of a fault that was resumed long ago"),
    "zero-length": Kind("event", (), "an event for no bytes"),
    "huge-length": Kind("event", (), "an event for more bytes than any region has"),
    "outside-region": Kind("event", (), "an event on an address behind the region's end"),
    "destroyed-object": Kind("gone", (), "an event on a QP or key that was destroyed just before"),
    "lose-resume": Kind("resume", (), "a resume is answered with success and forgotten"),
    "fail-resume": Kind("resume", ("status", "syndrome"), "a resume is refused; the fault stays open"),
    "late-resume": Kind("resume", ("delay_ms",), "a resume is answered at once, what it held goes on later"),
    "delay-umr": Kind("umr", ("delay_ms",), "a UMR is done late; its queue waits"),
    "fail-umr": Kind(
        "umr",
        ("syndrome", "delay_ms"),
        "a UMR is not done and completes with error; what is behind it is flushed later",
    ),
    "delay-command": Kind("command", ("delay_ms",), "a command is run and answered late"),
    "fail-command": Kind(
        "command", ("status", "syndrome"), "a command is not run and answered with a status"
    ),
    "refuse-second-queue": Kind(
        "queue", ("status", "syndrome"), "a second event queue for page faults is refused"
    ),
    "first-queue-wins": Kind(
        "queue", (), "of two event queues for page faults the first goes on getting them, not the last"
    ),
    "lose-command": Kind("command", (), "a command is not run and never answered"),
}


def keys_of(kind: str) -> Tuple[str, ...]:
    """The keys that a rule of that kind may have."""
    known = KINDS[kind]
    return COMMON + SELECTORS[known.on] + known.numbers
