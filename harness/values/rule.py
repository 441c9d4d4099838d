"""An injection rule: what an emulated card does wrong, which a real one cannot be made to do.

Plans state rules as `[[rules]]`, tests as `Rule(...)`. The card gets them before a case starts and reports an
`Outcome` for each afterwards. `KINDS` has every kind with the keys that it takes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Dict, NamedTuple, Tuple

EVENT_SIDES: Dict[str, str] = {
    "requester": "The local buffer of a work request.",
    "receiver": "The buffer of a receive.",
    "rdma": "The target or source of an RDMA operation.",
}
REGION_SIDES: Dict[str, str] = {
    "local": "The region of the side that posts the work request.",
    "remote": "The region of the other side.",
}
UMR_LISTS: Dict[str, str] = {
    "map": "Map pages.",
    "zap": "Unmap invalidated pages.",
    "context": "Change the mkey context.",
}
OBJECTS: Dict[str, str] = {"qp": "Queue pairs.", "mkey": "Memory keys."}
SINCE = ("start", "user", "connected")
"""When a rule on commands and UMRs begins to count: at once (the driver's own probe included), when a process makes its
first CQ, or when a QP of a process is ready to send."""


@dataclass(frozen=True)
class Rule:
    """Hold one injection rule, for one sort of work: page faults, resumes, accesses, UMRs, commands, ends of objects.

    Of the work that matches the selectors (`side`, `region` and `page`, `umr`, `opcode`, `object`) it acts on
    the `nth` (from 1), then on each `every`-th, `count` times in all (0: without end). With `percent` below 100 a
    draw from `seed` decides. Numbers: `delay_ms`; `events` injected at a time; `status` and `syndrome` of a failed
    command or completion; `pages` that are absent; `pre` and `post` pages of a hint. A rule that never acted
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
    """Report what a rule did: `matches` of its selectors, `hits` on which it acted, `text` for people."""

    kind: str
    matches: int = 0
    hits: int = 0
    text: str = ""
    optional: bool = False


class Kind(NamedTuple):
    """Describe a kind of rule: the work it matches (a key of SELECTORS), the numbers it takes, its effect."""

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
    "delay-event": Kind("event", ("delay_ms",), "the page-fault event is delayed"),
    "drop-event": Kind("event", (), "the page-fault event is never delivered"),
    "double-event": Kind("event", ("events",), "the page-fault event is delivered again with the same token"),
    "reorder-event": Kind(
        "event", ("delay_ms",), "the page-fault event waits until another has passed it, or for delay_ms"
    ),
    "second-fault": Kind("event", (), "a second fault on the same page before the first is resolved"),
    "storm": Kind("event", ("events",), "a fault raises many others on the same region or work request"),
    "prefetch-hint": Kind(
        "event", ("pre", "post"), "the event hints at pages before and behind the fault (memory scheme)"
    ),
    "drawn-events": Kind("event", ("events",), "events with random fields come before the event of a fault"),
    "unknown-sub-type": Kind("event", (), "an event of an undefined sub-type"),
    "unknown-queue": Kind("event", (), "an event for a queue that never existed"),
    "unknown-key": Kind("event", (), "an event for an mkey that never existed"),
    "stale-token": Kind("event", (), "an event with the token of a fault that was resumed long ago"),
    "zero-length": Kind("event", (), "an event for 0 bytes"),
    "huge-length": Kind("event", (), "an event for more bytes than any region has"),
    "outside-region": Kind("event", (), "an event for an address beyond the end of the region"),
    "destroyed-object": Kind("gone", (), "an event for a QP or mkey that was destroyed just before"),
    "lose-resume": Kind("resume", (), "a resume is answered with success and ignored"),
    "fail-resume": Kind("resume", ("status", "syndrome"), "a resume fails; the fault stays open"),
    "late-resume": Kind("resume", ("delay_ms",), "a resume is answered at once and takes effect later"),
    "delay-umr": Kind("umr", ("delay_ms",), "a UMR is done late; its queue waits"),
    "fail-umr": Kind(
        "umr",
        ("syndrome", "delay_ms"),
        "a UMR is not done and completes with error; the work behind it is flushed later",
    ),
    "delay-command": Kind("command", ("delay_ms",), "a command is executed and answered late"),
    "fail-command": Kind("command", ("status", "syndrome"), "a command is not executed and fails"),
    "refuse-second-queue": Kind(
        "queue", ("status", "syndrome"), "a second event queue for page faults is refused"
    ),
    "first-queue-wins": Kind(
        "queue", (), "of two event queues for page faults the first keeps the events, not the last"
    ),
    "lose-command": Kind("command", (), "a command is not executed and never answered"),
}


def keys_of(kind: str) -> Tuple[str, ...]:
    """Return the keys that a rule of that kind may have."""
    known = KINDS[kind]
    return COMMON + SELECTORS[known.on] + known.numbers
