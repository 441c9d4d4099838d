from pathlib import Path

import pytest

from harness.errors import UsageError
from harness.kernel.packages import SERIES
from harness.plan.plan import load
from harness.values import codec
from harness.values.case import Case
from harness.values.rule import KINDS

CHECKOUT = Path(__file__).parents[4]

GOOD = """\
title = "t"
needs = ["odp.rc.write"]

[matrix]
kernel = ["7.2", "7.3"]
"remote.offset" = [0, 100]

[workload]
operation = "write"
rounds = 2
pages = 3

[faults]
how = "dontneed"
side = "remote"

[expect.latency]
fault_p99_ns = 20000
"""


def _load(tmp_path, text):
    path = tmp_path / "x.toml"
    path.write_text(text)
    return load(path)


def test_matrix_is_the_product(tmp_path):
    """Mutation: zip the axes."""
    cases = list(_load(tmp_path, GOOD).cases())
    assert [planned.case.id for planned in cases] == [
        "x/7.2/soft-roce/remote.offset=0",
        "x/7.2/soft-roce/remote.offset=100",
        "x/7.3/soft-roce/remote.offset=0",
        "x/7.3/soft-roce/remote.offset=100",
    ]
    work = cases[1].case.workload
    assert (work.remote.offset, work.local.offset, work.remote.length) == (100, 0, 3 * 4096)
    assert cases[0].plan.expect.latency == {"fault_p99_ns": 20000}
    assert cases[0].clock == "exact"


def test_what_is_said_of_the_lost_region_is_of_the_side_that_loses_pages(tmp_path):
    """Mutation: of the remote one always: then cases of another side repeat each other."""
    varied = GOOD.replace(
        '"remote.offset" = [0, 100]', 'side = ["remote", "local", "both"]\n"lost.offset" = [100]'
    )
    cases = _load(tmp_path, varied.replace('side = "remote"\n', "")).cases(("7.2",))
    offsets = [(one.case.workload.local.offset, one.case.workload.remote.offset) for one in cases]
    assert offsets == [(0, 100), (100, 0), (100, 100)]


def test_what_may_be_done_with_pages_is_said_of_a_region(tmp_path):
    """Mutation: leave the key out of a region's."""
    closed = GOOD.replace('"remote.offset" = [0, 100]', '"lost.prot" = ["write", "read"]')
    cases = list(_load(tmp_path, closed).cases(("7.2",)))
    prots = [(one.case.workload.local.prot, one.case.workload.remote.prot) for one in cases]
    assert prots == [("write", "write"), ("write", "read")]


def _refused(tmp_path, good, edit, message, hint):
    """A plan that was good is an error of the user's after one edit."""
    assert edit[0] in good
    with pytest.raises(UsageError, match=message) as caught:
        _load(tmp_path, good.replace(*edit))
    assert hint in caught.value.hint


@pytest.mark.parametrize(
    ("old", "new", "message", "hint"),
    [
        ("rounds = 2", "round = 2", r"x.toml:10: workload.round: unknown key", "'rounds'?"),
        (
            'how = "dontneed"',
            'how = "dontned"',
            r"x.toml:14: faults.how: 'dontned' is none of",
            "'dontneed'?",
        ),
        ("rounds = 2", "rounds = 0", r"x.toml:10: workload.rounds: 0 is not in 1", ""),
        ("rounds = 2", 'rounds = "2"', r"x.toml:10: workload.rounds: expected int", ""),
        ("rounds = 2", "rounds = 2 3", r"x.toml:10: not TOML", ""),
        ('kernel = ["7.2", "7.3"]', 'kernel = ["7.9"]', r"x.toml:5: matrix.kernel: '7.9' is none of", ""),
        ('"remote.offset" = [0, 100]', '"remote.ofset" = [0]', r"x.toml:6: matrix.remote.ofset", "offset"),
        ("[0, 100]", "[0, 5000]", r"x.toml:6: matrix.remote.offset: 5000 is not in 0..4095", ""),
        ("pages = 3", "pages = 3\nlength = 7", r"x.toml:12: workload.length: contradicts", ""),
        (
            'side = "remote"',
            'side = "both"\n[workload.local]\nodp = false',
            r"faults.side: loses pages of the local",
            "",
        ),
        ('title = "t"', "", r"title: missing", ""),
        ("fault_p99_ns = 20000", "fault_p98_ns = 1", r"expect.latency.fault_p98_ns: unknown key", ""),
    ],
)
def test_errors_name_file_line_and_key(tmp_path, old, new, message, hint):
    """Mutation: drop the line search, or one of the checks."""
    _refused(tmp_path, GOOD, (old, new), message, hint)


def test_known_says_what_it_looks_like(tmp_path):
    """Mutations: accept an entry without a text, or one that excuses all of its kinds; point at the first entry."""
    entry = '\n[[known]]\nkernel = ["7.2", "7.3"]\nkinds = ["law"]\n'
    with pytest.raises(UsageError, match="known.says: missing"):
        _load(tmp_path, GOOD + entry + 'text = "why"\n')
    entry += 'says = ["faults"]\n'
    with pytest.raises(UsageError, match="known.text: missing"):
        _load(tmp_path, GOOD + entry)
    entry += 'text = "why"\n'
    known = _load(tmp_path, GOOD + entry).known[0]
    assert (known.kernels, known.kinds) == (("7.2", "7.3"), ("law",))
    line = (GOOD + entry + entry).splitlines().index("[[known]]", len(GOOD.splitlines()) + 2) + 2
    with pytest.raises(UsageError, match=f"x.toml:{line}: known.kernel: a list"):
        _load(tmp_path, GOOD + entry + entry.replace('["7.2", "7.3"]', '"7.3"'))


RULES = (
    GOOD.replace("[matrix]", '[matrix]\ndevice = ["connectx-5"]')
    + """
[[rules]]
kind = "delay-event"
nth = 2
delay_ms = 100

[[rules]]
kind = "fail-command"
opcode = "CREATE_QP"
status = 5

[expect]
workload = "fails"
problem = "missing"
found = ["bad-resume"]

[expect.card]
"faults.raised" = 3
"faults.requester 1" = 3
"""
)


def test_rules_travel_with_the_case(tmp_path):
    """Mutation: leave them in the plan."""
    planned = next(iter(_load(tmp_path, RULES).cases()))
    first, second = planned.case.rules
    assert (first.kind, first.nth, first.delay_ms) == ("delay-event", 2, 100)
    assert (second.opcode, second.status, second.since) == ("CREATE_QP", 5, "connected")
    assert codec.loads(Case, codec.dumps(planned.case)) == planned.case
    text = RULES.replace("pages = 3", "pages = 3\ntrace = false\ntimeout_s = 7")
    case = next(iter(_load(tmp_path, text).cases())).case
    assert (case.trace, case.timeout_s, planned.case.trace) == (False, 7.0, True)
    expect = planned.plan.expect
    assert (expect.workload, expect.found) == ("fails", ("bad-resume",))
    assert expect.card == {"faults.raised": 3, "faults.requester 1": 3}


@pytest.mark.parametrize(
    ("old", "new", "message", "hint"),
    [
        (
            'kind = "fail-command"',
            'kind = "fail-comand"',
            r"x.toml:27: rules.kind: 'fail-comand' is none",
            "'fail-command'?",
        ),
        ("status = 5", "stauts = 5", r"x.toml:29: rules.stauts: unknown key", "'status'?"),
        ("status = 5", "events = 5", r"x.toml:29: rules.events: no key of fail-command", ""),
        ("status = 5", "status = 999", r"x.toml:29: rules.status: 999 is not in 1..255", ""),
        ("delay_ms = 100", 'delay_ms = "long"', r"x.toml:24: rules.delay_ms: expected int", ""),
        ('opcode = "CREATE_QP"', "", r"x.toml:26: rules.opcode: missing", ""),
        ('kind = "delay-event"', "", r"x.toml:21: rules.kind: missing", ""),
        ('["connectx-5"]', '["connectx-5", "soft-roce"]', r"x.toml:21: rules: only an emulated card", ""),
        (
            '"faults.raised" = 3',
            '"faults.raised" = "3"',
            r"x.toml:37: expect.card.faults.raised: a count",
            "",
        ),
        (
            'workload = "fails"',
            'workload = "fail"',
            r"x.toml:32: expect.workload: 'fail' is none of",
            "'fails'?",
        ),
    ],
)
def test_errors_in_rules_name_the_right_one(tmp_path, old, new, message, hint):
    """Mutation: point at the first [[rules]] table always."""
    _refused(tmp_path, RULES, (old, new), message, hint)


def test_a_plan_is_longer_when_all_is_to_run(tmp_path, monkeypatch):
    """Mutations: take [full] always, or never; on every kernel."""
    text = GOOD + "\n[full]\nworkload.rounds = 500\nworkload.seconds = 900\ndeadline_s = 1500\n"
    monkeypatch.delenv("ODP_FULL", raising=False)
    *_, short = _load(tmp_path, text).cases()
    monkeypatch.setenv("ODP_FULL", "1")
    *_, long = _load(tmp_path, text).cases()
    assert [(p.case.workload.rounds, p.case.workload.seconds, p.deadline_s) for p in (short, long)] == [
        (2, 0, 120),
        (500, 900, 1500),
    ]
    rounds = {p.kernel: p.case.workload.rounds for p in _load(tmp_path, text).cases(("6.1", "7.3", "newest"))}
    assert rounds == {"6.1": 2, "7.3": 500, "newest": 500}
    assert next(_load(tmp_path, text).cases(("6.1",))).case.workload.rounds == 500
    with pytest.raises(UsageError, match=r"x.toml:21: full.workload.round: unknown key"):
        _load(tmp_path, text.replace("rounds = 500", "round = 500"))


def test_every_plan_of_the_checkout_can_be_read():
    """Mutation: drop a key that one of them uses."""
    plans = [load(path) for path in sorted(CHECKOUT.glob("testplans/*.toml"))]
    ruled = [plan for plan in plans if plan.rules]
    assert len(ruled) >= 20 and all(plan.title and list(plan.cases()) for plan in plans)
    assert all(list(plan.kernels) == sorted(plan.kernels, key=list(SERIES).index) for plan in plans)
    kinds = {rule.kind for plan in ruled for rule in plan.rules}
    assert set(KINDS) <= kinds, "a kind that no plan uses"
