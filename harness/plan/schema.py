"""The keys of a plan file: their types, values, defaults and meaning, as one table.

Parsing, the JSON Schema and docs/plan-format.md come from it (plan/plan.py, plan/format.py).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from harness.device.traits import NEEDS, TRAITS
from harness.kernel.packages import SERIES
from harness.values import module
from harness.values.case import IOVAS, MAPPINGS, OPERATIONS, PAGE_LOSSES, PROTS, SIDES
from harness.values.rule import EVENT_SIDES, KINDS, OBJECTS, REGION_SIDES, SINCE, UMR_LISTS, Rule

PAGE_BYTES = 4096
MAX_BYTES = 256 << 20
# A region of which little is touched.
MAX_SPARSE_BYTES = 64 << 30
DEADLINE_S = 120

Values = Mapping[str, str] | tuple[str | int, ...]


@dataclass(frozen=True)
class Key:
    """One key: its type, the values it may have (names, or an inclusive range of numbers), its default, its meaning.

    `names` with a sentence each are a mapping. `items`: a list of at least one such value.
    """

    kind: type
    names: Values = ()
    low: int = 0
    high: int = 1 << 62
    items: bool = False
    default: Any = None
    text: str = ""


STOCK = tuple(name for name in SERIES if name != "newest")
REASONS = {
    "count": "A count differs from what is expected.",
    "data": "Bytes of a region are wrong.",
    "console": "The kernel printed a warning or an error.",
    "leak": "A resource is not released.",
    "latency": "A latency is above its bound.",
    "workload": "The work requests do not end as expected.",
    "hang": "The machine did not answer in time.",
    "finding": "The driver violated the protocol of the card.",
    "rule": "An injection rule never matched.",
}
ENDS = {
    "done": "All work requests complete.",
    "fails": "A work request completes with an error that has `expect.problem` in its text.",
    "any": "Both ends are right.",
}
CLOCKS = {
    "exact": "An instruction of the machine is a nanosecond; a repeated case answers the same.",
    "real": "Time of the host.",
}
CONSOLES = {"clean": "Any symptom on the console is a failure.", "any": "The console is not looked at."}

_REGION = {
    "offset": Key(int, high=PAGE_BYTES - 1, default=0, text="Bytes from the start of its first page."),
    "mapping": Key(str, MAPPINGS, default="anonymous", text="The kind of memory behind it."),
    "iova": Key(str, IOVAS, default="address", text="The address that it is registered at."),
    "odp": Key(
        bool,
        default=True,
        text="Register it on demand, not pinned. Default: true, but false in a plan with [module].",
    ),
    "prot": Key(
        str, PROTS, default="write", text="What the process may do with the pages once they are filled."
    ),
}
REGIONS = {
    "local": "The region of the side that posts the work request",
    "remote": "The region of the other side",
    "absent": "The region of the side whose pages are made absent",
}

_DEFAULTS = Rule("")
_SINCE = dict(
    zip(
        SINCE,
        (
            "At once: the probe of the driver counts, too.",
            "When a process creates its first CQ.",
            "When a QP of a process is ready to send.",
        ),
        strict=True,
    )
)
RULE = {
    "kind": Key(str, {kind: KINDS[kind].text for kind in KINDS}, text="What the card does."),
    "nth": Key(int, low=1, high=1 << 20, default=1, text="The first match that it acts on."),
    "every": Key(int, low=1, high=1 << 20, default=1, text="It acts on each `every`-th match after that."),
    "count": Key(int, high=1 << 20, default=1, text="How many times it acts; 0: without end."),
    "percent": Key(
        int, low=1, high=100, default=100, text="The chance to act on a match, drawn from `seed`."
    ),
    "seed": Key(int, high=1 << 30, default=0, text="The seed of the draws for `percent`."),
    "side": Key(str, EVENT_SIDES, text="Match faults of this side only."),
    "region": Key(str, REGION_SIDES, text="Match accesses to this region only."),
    "page": Key(int, high=MAX_BYTES // PAGE_BYTES, default=0, text="The first page of the region to match."),
    "pages": Key(int, low=1, high=MAX_BYTES // PAGE_BYTES, default=1, text="How many pages are absent."),
    "umr": Key(str, UMR_LISTS, text="Match UMRs that do this only."),
    "opcode": Key(str, text="The firmware command to match, as CREATE_QP."),
    "object": Key(str, OBJECTS, text="Match the destruction of such objects only."),
    "since": Key(str, _SINCE, default="connected", text="When it begins to count matches."),
    "delay_ms": Key(int, low=1, high=120_000, default=_DEFAULTS.delay_ms, text="The delay, in milliseconds."),
    "events": Key(int, low=1, high=4096, default=1, text="How many events are injected at a time."),
    "status": Key(
        int, low=1, high=255, default=_DEFAULTS.status, text="The status of the command that fails."
    ),
    "syndrome": Key(int, high=(1 << 32) - 1, default=0, text="The syndrome of the command or completion."),
    "pre": Key(int, high=(1 << 16) - 1, default=0, text="Pages that the hint names before the fault."),
    "post": Key(int, high=(1 << 16) - 1, default=0, text="Pages that the hint names behind the fault."),
    "optional": Key(bool, default=False, text="The case does not fail if the rule never acts."),
}

MODULE = {
    "mode": Key(str, module.MODES, default="own", text="What the kernel module does with page faults."),
    "answer": Key(
        str, module.ANSWERS, default="resume", text="How Python answers a fault that is forwarded to it."
    ),
    "region": Key(str, module.REGIONS, default="verbs", text="How the remote memory key is made."),
    "paging": Key(bool, default=True, text="Build mlx5_ib with on-demand paging."),
}
POLICY = {
    "action": Key(str, module.ACTIONS, text="What the module does with a fault that matches."),
    "selector": Key(str, module.SELECTORS, default="any", text="What it matches faults by."),
    "of": Key(str, module.OWNERS, text="Whose number `selector` compares with."),
    "value": Key(int, high=(1 << 48) - 1, default=0, text="The number to compare with, without `of`."),
    "delay_ms": Key(int, low=1, high=60_000, text="The delay of the action `delay`, in milliseconds."),
}
KNOWN = {
    "kernel": Key(str, STOCK, items=True, text="The series that have the defect. Default: all."),
    "since": Key(str, STOCK, text="The first series that has the defect, instead of `kernel`."),
    "device": Key(str, tuple(TRAITS), items=True, text="The devices that show it. Default: all of the plan."),
    "kinds": Key(str, REASONS, items=True, text="The kinds of reasons that the case fails for."),
    "message": Key(
        str, items=True, text="Texts of which each such reason has one, so that no other failure is excused."
    ),
    "text": Key(str, text="The defect in one sentence, for the report."),
    "sometimes": Key(bool, default=False, text="The case may pass as well: the defect is a race."),
}

SCHEMA: dict[str, Key] = {
    "title": Key(str, text="The plan in one sentence."),
    "needs": Key(
        str,
        NEEDS,
        items=True,
        text="What the device must be able to do. [[rules]], [module] and regions on demand imply `rules`, `mlx5` and "
        "`odp`.",
    ),
    "since": Key(
        str, STOCK, text="The first series to run on. Default: all series. See also `matrix.kernel`."
    ),
    "clock": Key(
        str, CLOCKS, text="The clock of the machine. Default: exact for software devices, real for cards."
    ),
    "deadline_s": Key(
        int, low=1, high=90_000, default=DEADLINE_S, text="Seconds of the host that a case may take."
    ),
    "matrix.kernel": Key(
        str, tuple(SERIES), items=True, text="The series to run on. Default: all, or all from `since` on."
    ),
    "matrix.device": Key(
        str, tuple(TRAITS), items=True, text="The devices to run on. Default: all that meet `needs`."
    ),
    "workload.operation": Key(str, OPERATIONS, text="What is done between the two regions."),
    "workload.rounds": Key(
        int, low=1, high=100_000, default=1, text="How often; pages are made absent before each round."
    ),
    "workload.pages": Key(
        int, low=1, high=MAX_BYTES // PAGE_BYTES, default=1, text="The length of each region, in pages."
    ),
    "workload.length": Key(
        int, low=1, high=MAX_SPARSE_BYTES, text="The length of each region in bytes, instead of `pages`."
    ),
    "workload.mtu": Key(
        int, (256, 512, 1024, 2048, 4096), default=4096, text="The path MTU: the size of a packet in bytes."
    ),
    "workload.seconds": Key(
        int, low=1, high=86_400, text="How long a soak lasts, in seconds; its `rounds` do not count then."
    ),
    "workload.seed": Key(
        int,
        high=1 << 20,
        default=0,
        text="The start offset in turns of a counted loop; the seed of a soak's draws.",
    ),
    "workload.timeout_s": Key(
        int, low=1, high=600, default=20, text="Seconds of the machine that one work request may take."
    ),
    "workload.trace": Key(
        bool,
        default=True,
        text="Trace page faults. Default: true, but false where [module] has mode `own`.",
    ),
    **{
        f"workload.{side}.{name}": Key(
            **{**vars(key), "text": f"{text}: {key.text[0].lower()}{key.text[1:]}"}
        )
        for side, text in REGIONS.items()
        for name, key in _REGION.items()
    },
    "page_loss.method": Key(
        str, PAGE_LOSSES, default="none", text="How pages are made absent before each round."
    ),
    "page_loss.side": Key(str, SIDES, default="remote", text="The side whose pages are made absent."),
    "expect.counts": Key(bool, default=True, text="Counts follow from the page-state model."),
    "expect.conservation": Key(
        bool, default=True, text="Events of the card, works of the driver and resumes are equal."
    ),
    "expect.data": Key(bool, default=True, text="Every byte of both regions and around them is right."),
    "expect.console": Key(str, CONSOLES, default="clean", text="What the kernel may print."),
    "expect.leaks": Key(bool, default=True, text="Every resource is released at the end."),
    "expect.findings": Key(bool, default=True, text="The card finds no protocol violation by the driver."),
    "expect.faults": Key(int, text="How many page faults are traced, exactly."),
    "expect.workload": Key(str, ENDS, default="done", text="How the work requests end."),
    "expect.problem": Key(str, text="A text in the error with which the workload fails."),
    "expect.refused": Key(str, text="A text in the error with which the kernel module refuses its mode."),
    "expect.found": Key(str, items=True, text="Kinds of findings that must occur, and are no failures then."),
    "expect.may_find": Key(str, items=True, text="Kinds of findings that may occur, where a race decides."),
    "expect.log": Key(
        str, items=True, text="Texts that must be on the console; a warning that has one is no failure."
    ),
    **{f"known.{name}": key for name, key in KNOWN.items()},
    **{f"rules.{name}": key for name, key in RULE.items()},
}

FULL_KEYS = ("workload.rounds", "workload.seconds", "deadline_s")
SCHEMA.update({f"full.{key}": SCHEMA[key] for key in FULL_KEYS})

COUNTERS = {
    "expect.card": "Counters of the card, as `faults.failed`, that must have exactly these values.",
    "expect.card_max": "Counters of the card, as `process.rss_growth_kib`, that may not be larger.",
    "expect.module": "Counters of the kernel module that must have exactly these values.",
    "expect.at_least": "Counts of the trace that may not be smaller, where the model does not say how large they are.",
}
"""Tables of numbers by the dotted name of a counter."""

LATENCY = (
    "Upper bounds in nanoseconds, by STAGE_QUANTILE_ns: the stage is `operation`, `fault` or one of the trace, the "
    "quantile p50, p90, p99 or max. STAGE_QUANTILE_exact_ns and STAGE_QUANTILE_real_ns bind on that clock only."
)

TABLES = {
    "": "The plan itself.",
    "matrix": "What varies. Each key of [workload] and [page_loss] may be here with a list of values; each combination "
    "is a case.",
    "workload": "What is done.",
    "page_loss": "How pages are made absent.",
    "full": "Settings of the long form, with ODP_FULL=1, on the newest of the kernels.",
    "expect": "What is expected of each case.",
    "known": "A known defect of stock kernels ([[known]], any number): the case fails so and only so, and must. It is "
    "reported as a known failure; if it passes, as an unexpected pass, which is a failure.",
    "rules": "An injection rule for the emulated card ([[rules]], any number).",
    "module": "The kernel module mlx5_odp_test, and how the case uses it.",
    "module.policies": "What the module does with faults: the policy whose selector matches, else the one for `any`.",
}
"""The tables of a plan file, in the order of the documentation."""

RENAMED = {
    "faults.how": "page_loss.method",
    "faults.side": "page_loss.side",
    "faults": "page_loss",
    "matrix.how": "matrix.method",
    "matrix.lost": "matrix.absent",
    "workload.lost": "workload.absent",
    "expect.laws": "expect.counts",
    "expect.card_most": "expect.card_max",
    "expect.least": "expect.at_least",
    "known.says": "known.message",
}
"""Keys of older plans, each with what it is called now."""

RENAMED_VALUES = {
    ("known.kinds", "law"): "count",
    ("page_loss.method", "late"): "userfaultfd",
    ("page_loss.method", "peeked"): "read_faulted",
}
"""Values of older plans, by key."""


def renamed(key: str) -> str:
    """Return the present name of an older key, or nothing."""
    for old, new in RENAMED.items():
        if key == old or key.startswith(old + "."):
            return new + key.removeprefix(old)
    return ""


def of(settings: Mapping[str, Any], key: str) -> Any:
    """Return the value of a key, or its default."""
    return settings.get(key, SCHEMA[key].default)
