"""[module] in plans, and what its report must say."""

from dataclasses import replace

import pytest

from harness.errors import UsageError
from harness.plan import module_verdict
from harness.plan.plan import load
from harness.values import codec
from harness.values.case import Case
from harness.values.module import ModulePolicy, ModuleReport, ModuleUse
from harness.values.record import DeviceReport
from harness.values.rule import Outcome

PLAN = """\
title = "t"

[matrix]
device = ["connectx-5"]

[workload]
operation = "write"

[module]
mode = "own"
policies = [
    { action = "resume", selector = "queue", of = "requester" },
    { action = "delay", delay_ms = 7 },
]

[expect]
refused = "another event queue"

[expect.module]
events = 3
"status.5" = 2
"""


def _load(tmp_path, text):
    path = tmp_path / "x.toml"
    path.write_text(text)
    return load(path)


def test_the_use_of_the_module_is_in_the_case_and_nothing_is_traced(tmp_path):
    """Mutation: trace what mlx5_ib no longer sees; lose a policy."""
    plan = _load(tmp_path, PLAN)
    case = next(iter(plan.cases())).case
    assert case.module == ModuleUse(
        "own", (ModulePolicy("resume", "queue", "requester"), ModulePolicy("delay", delay_ms=7))
    )
    assert not case.trace and codec.loads(Case, codec.dumps(case)) == case
    assert plan.expect.module == {"events": 3, "status.5": 2}
    observing = next(iter(_load(tmp_path, PLAN.replace('"own"', '"observe"')).cases())).case
    assert observing.trace


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('mode = "own"', 'mode = "owns"', r"x.toml:10: module.mode: 'owns' is none of"),
        ('mode = "own"', 'modus = "own"', r"x.toml:10: module.modus: unknown key"),
        ('action = "delay"', 'action = "late"', r"module.policies.action: 'late' is none of"),
        ('action = "delay", ', "", r"x.toml:11: module.policies: one has no action"),
        ('"connectx-5"', '"connectx-5", "soft-roce"', r"module: the kernel module is for mlx5 cards"),
        ("events = 3", 'events = "3"', r"expect.module.events: a count"),
    ],
)
def test_errors_name_the_line(tmp_path, old, new, message):
    """Mutation: take any table."""
    with pytest.raises(UsageError, match=message):
        _load(tmp_path, PLAN.replace(old, new))


WORDS = {"transport": {"general": ("sig",), "rc": ("send", "receive"), "ud": ("send",)}}
CAPS = {
    f"{which}.{name}": words
    for which in ("max", "cur")
    for name, words in (
        ("driver", "same"),
        ("chosen", "transport"),
        ("transport.rc", "send receive"),
        ("transport.ud", "send"),
    )
} | {"verbs": "explicit", "verbs.rc": "send recv", "verbs.ud": "send"}
RULES = (Outcome("absent-page", 3, 3), Outcome("drawn-events", 3, 3))
OWN = ModuleReport({"events": 5, "resumes": 4, "resumes_refused": 1}, CAPS, {"status.5": 1}, 5, 2)
COUNTERS = {"faults.events": 5, "faults.resumed": 2, "faults.injected": 2}
COUNTERS |= {"faults.injected_resumed": 2, "faults.unknown_resumes": 1}


def _check(report=OWN, counters=COUNTERS, mode="own", expected=(), refused="", firmware=WORDS, paging=True):
    use = ModuleUse(mode, paging=paging)
    return list(
        module_verdict.check(
            use, dict(expected), refused, report, DeviceReport(counters=counters, rules=RULES), firmware
        )
    )


def test_equal_counters_are_no_problem():
    assert _check() == []
    observed = replace(OWN, stats={"observed": 5, "observed_resumes": 5})
    assert _check(observed, mode="observe") == []


@pytest.mark.parametrize(
    ("report", "problem"),
    [
        (None, "no report"),
        (replace(OWN, stats={**OWN.stats, "events": 4}), "events: 4, the card reports 5"),
        (replace(OWN, stats={**OWN.stats, "resumes": 5}), "resumes: 5, the card reports 4"),
        (replace(OWN, stats={**OWN.stats, "overruns": 3}), "overruns: 3"),
        (replace(OWN, drawn=1), "1 right, the card sent 2"),
        (replace(OWN, difference="event 3: va"), "not what the card raised: event 3"),
        (replace(OWN, refused="not yours"), "got 'not yours'"),
        (replace(OWN, caps={**CAPS, "max.driver": "differs"}), "copy of the max page"),
        (
            replace(OWN, caps={**CAPS, "max.transport.rc": "send"}),
            "max.transport.rc: firmware states send rec",
        ),
        (replace(OWN, caps={**CAPS, "cur.memory.rc": "send"}), "cur.memory.rc: firmware states nothing"),
        (replace(OWN, caps={**CAPS, "verbs.ud": "send recv"}), "ud: verbs say recv send"),
    ],
)
def test_each_difference_is_a_problem(report, problem):
    """Mutation: leave out any one comparison of module_verdict.check."""
    problems = _check(report)
    assert len(problems) == 1 and problem in problems[0]


def test_an_expectation_of_the_plan_replaces_the_comparison():
    """Mutation: ask both; or ask neither."""
    lost = replace(OWN, stats={**OWN.stats, "lost_memory": 2, "events": 3})
    assert len(_check(lost)) == 2
    assert _check(lost, expected={"lost_memory": 2, "events": 3}.items()) == []
    assert _check(lost, expected={"lost_memory": 1, "events": 3}.items()) == [
        "lost_memory: expected 1, counted 2"
    ]
    assert _check(expected={"status.5": 2}.items()) == ["status.5: expected 2, counted 1"]


def test_a_refusal_is_expected_or_a_problem():
    """Mutation: compare counters of a mode that was not had; let verbs without paging differ."""
    refused = replace(OWN, refused="built without on-demand paging", stats={})
    assert _check(refused, refused="without on-demand", mode="observe") == []
    assert len(_check(refused, mode="observe")) == 1 and len(_check(refused=("own",)[0])) == 1
    without = replace(refused, caps={**CAPS, "verbs.rc": "", "verbs.ud": ""})
    assert len(_check(without, refused="without", mode="observe")) == 2
    assert _check(without, refused="without", mode="observe", paging=False) == []
