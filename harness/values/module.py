"""The kernel module mlx5_odp_test in a case: how it is to be used, and what it saw.

Ref: kmod/uapi/mlx5_odp_test.h for modes, actions and selectors.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Dict, Tuple

MODES = ("off", "observe", "own")
ACTIONS = ("none", "forward", "resume", "fail", "delay", "drop", "double")
SELECTORS = ("any", "qpn", "queue", "token", "key")
OWNERS = ("requester", "responder", "local", "remote")
"""Whose number a selector takes: a queue pair's (qpn, queue) or a region's key (key)."""

ANSWERS = ("resume", "error", "twice", "unknown", "flags", "late", "nothing")
"""What Python answers to a fault that is forwarded to it: it lets the card go on; it says error; it resumes twice;
it resumes a token that nobody has, then the right one; it resumes with each bit of the type wrong, then right; it
resumes when the work has long ended; it says nothing."""

REGIONS = ("verbs", "pg_access")


@dataclass(frozen=True)
class ModulePolicy:
    """What the module does with the faults that its selector names: `of` one of OWNERS, else the number `value`."""

    action: str
    selector: str = "any"
    of: str = ""
    value: int = 0
    delay_ms: int = 0


@dataclass(frozen=True)
class ModuleUse:
    """How a case uses the module. With `region` "pg_access" the remote region is a memory key with page access,
    made by a firmware command as in 2015; with `paging` False mlx5_ib is built without on-demand paging."""

    mode: str = "own"
    policies: Tuple[ModulePolicy, ...] = ()
    answer: str = "resume"
    region: str = "verbs"
    paging: bool = True


@dataclass(frozen=True)
class ModuleReport:
    """What the module saw of a case.

    `stats` are its own statistics; `caps` the words of the capability pages by `max.transport.rc` and so on, with
    `max.driver` and `cur.driver` "same" or "differs" for mlx5_core's copies, and `verbs.rc` as verbs report them.
    `answers` counts the card's answers to Python's resumes by `status.N`. Python `heard` so many events, of which
    `drawn` had random fields and were right in each (`difference`: the first that was not); `lost` is how often its
    socket had no room. `answer_ns` are the times from an event, as the module saw it, to the end of Python's resume;
    `span_ns` is the time between the first event and the last. `refused` has the module's words where it did not take
    the mode.
    """

    stats: Dict[str, int] = field(default_factory=dict)
    caps: Dict[str, str] = field(default_factory=dict)
    answers: Dict[str, int] = field(default_factory=dict)
    heard: int = 0
    drawn: int = 0
    lost: int = 0
    difference: str = ""
    answer_ns: Tuple[int, ...] = ()
    span_ns: int = 0
    refused: str = ""
