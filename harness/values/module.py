"""The kernel module mlx5_odp_test in a case: its use and its report.

Ref: kmod/uapi/mlx5_odp_test.h for modes, actions and selectors.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Dict, Tuple

MODES: Dict[str, str] = {
    "off": "Nothing; it only answers queries.",
    "observe": "Record the page faults that mlx5_ib resolves.",
    "own": "Create an event queue of its own and handle page faults by policies.",
}
ACTIONS: Dict[str, str] = {
    "none": "Leave the fault open.",
    "forward": "Send it to Python, which resumes it.",
    "resume": "Resume it.",
    "fail": "Resume it with error.",
    "delay": "Resume it after `delay_ms`.",
    "drop": "Never resume it.",
    "double": "Resume it twice.",
}
SELECTORS: Dict[str, str] = {
    "any": "Every fault.",
    "qpn": "The number of a QP.",
    "queue": "The number of a work queue.",
    "token": "The token of the fault.",
    "key": "The memory key.",
}
OWNERS: Dict[str, str] = {
    "requester": "The QP that posts the work request (selectors qpn, queue).",
    "responder": "The QP of the other side (selectors qpn, queue).",
    "local": "The region of the side that posts the work request (selector key).",
    "remote": "The region of the other side (selector key).",
}
"""Whose number a selector compares with."""

ANSWERS: Dict[str, str] = {
    "resume": "Resume it.",
    "error": "Resume it with error.",
    "twice": "Resume it twice.",
    "unknown": "Resume a token that no fault has, then the right one.",
    "flags": "Resume it with each bit of the type wrong, then right.",
    "late": "Resume it when its work has long ended.",
    "nothing": "Do not answer.",
}
REGIONS: Dict[str, str] = {
    "verbs": "ibv_reg_mr().",
    "pg_access": "A firmware command with PG_ACCESS, as in 2015.",
}


@dataclass(frozen=True)
class ModulePolicy:
    """What the module does with the faults that its selector matches: the number of one of OWNERS, else `value`."""

    action: str
    selector: str = "any"
    of: str = ""
    value: int = 0
    delay_ms: int = 0


@dataclass(frozen=True)
class ModuleUse:
    """Use of the module by a case.

    With `region` "pg_access" the remote region is a memory key with page access, made by a firmware command as in
    2015; with `paging` False mlx5_ib is built without on-demand paging.
    """

    mode: str = "own"
    policies: Tuple[ModulePolicy, ...] = ()
    answer: str = "resume"
    region: str = "verbs"
    paging: bool = True


@dataclass(frozen=True)
class ModuleReport:
    """The module's report of a case.

    `stats` are its own statistics; `caps` the words of the capability pages by `max.transport.rc` and so on, with
    `max.driver` and `cur.driver` "same" or "differs" for mlx5_core's copies, and `verbs.rc` as verbs report them.
    `answers` counts the card's answers to Python's resumes by `status.N`. Python received `heard` events, of which
    `drawn` had random fields that were all right (`difference`: the first that was not); `lost` is how often its
    socket overran. `answer_ns` are the times from an event in the module to the end of Python's resume; `span_ns` is
    the time from the first event to the last. `refused` is the module's error where it refused the mode.
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
