import subprocess
import sys
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
device = ["soft-roce"]
"remote.offset" = [0, 100]

[workload]
operation = "write"
rounds = 2
pages = 3

[page_loss]
method = "dontneed"
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


def test_keys_of_the_absent_region_are_of_the_side_whose_pages_are_absent(tmp_path):
    """Mutation: of the remote one always: then cases of another side repeat each other."""
    varied = GOOD.replace(
        '"remote.offset" = [0, 100]', 'side = ["remote", "local", "both"]\n"absent.offset" = [100]'
    )
    cases = _load(tmp_path, varied.replace('side = "remote"\n', "")).cases(("7.2",))
    offsets = [(one.case.workload.local.offset, one.case.workload.remote.offset) for one in cases]
    assert offsets == [(0, 100), (100, 0), (100, 100)]


def test_protection_is_a_key_of_a_region(tmp_path):
    """Mutation: leave the key out of a region's."""
    closed = GOOD.replace('"remote.offset" = [0, 100]', '"absent.prot" = ["write", "read"]')
    cases = list(_load(tmp_path, closed).cases(("7.2",)))
    prots = [(one.case.workload.local.prot, one.case.workload.remote.prot) for one in cases]
    assert prots == [("write", "write"), ("write", "read")]


def _refused(tmp_path, good, edit, message, hint):
    """Check that a good plan is a usage error after one edit."""
    assert edit[0] in good
    with pytest.raises(UsageError, match=message) as caught:
        _load(tmp_path, good.replace(*edit))
    assert hint in caught.value.hint


@pytest.mark.parametrize(
    ("old", "new", "message", "hint"),
    [
        ("rounds = 2", "round = 2", r"x.toml:11: workload.round: unknown key", "'rounds'?"),
        (
            'method = "dontneed"',
            'method = "dontned"',
            r"x.toml:15: page_loss.method: 'dontned' is none of",
            "'dontneed'?",
        ),
        ("rounds = 2", "rounds = 0", r"x.toml:11: workload.rounds: 0 is not in 1", ""),
        ("rounds = 2", 'rounds = "2"', r"x.toml:11: workload.rounds: expected int", ""),
        ("rounds = 2", "rounds = 2 3", r"x.toml:11: not TOML", ""),
        ('kernel = ["7.2", "7.3"]', 'kernel = ["7.9"]', r"x.toml:5: matrix.kernel: '7.9' is none of", ""),
        ('"remote.offset" = [0, 100]', '"remote.ofset" = [0]', r"x.toml:7: matrix.remote.ofset", "offset"),
        ("[0, 100]", "[0, 5000]", r"x.toml:7: matrix.remote.offset: 5000 is not in 0..4095", ""),
        ("pages = 3", "pages = 3\nlength = 7", r"x.toml:13: workload.length: contradicts", ""),
        (
            'side = "remote"',
            'side = "both"\n[workload.local]\nodp = false',
            r"page_loss.side: the local region is pinned",
            "",
        ),
        ('title = "t"', "", r"title: missing", ""),
        ("fault_p99_ns = 20000", "fault_p98_ns = 1", r"expect.latency.fault_p98_ns: unknown key", ""),
    ],
)
def test_errors_name_file_line_and_key(tmp_path, old, new, message, hint):
    """Mutation: drop the line search, or one of the checks."""
    _refused(tmp_path, GOOD, (old, new), message, hint)


def test_a_known_defect_has_a_message(tmp_path):
    """Mutations: accept an entry without a text, or one that excuses all of its kinds; point at the first entry."""
    entry = '\n[[known]]\nkernel = ["7.2", "7.3"]\nkinds = ["count"]\n'
    with pytest.raises(UsageError, match="known.message: missing"):
        _load(tmp_path, GOOD + entry + 'text = "why"\n')
    entry += 'message = ["faults"]\n'
    with pytest.raises(UsageError, match="known.text: missing"):
        _load(tmp_path, GOOD + entry)
    entry += 'text = "why"\n'
    known = _load(tmp_path, GOOD + entry).known[0]
    assert (known.kernels, known.kinds) == (("7.2", "7.3"), ("count",))
    line = (GOOD + entry + entry).splitlines().index("[[known]]", len(GOOD.splitlines()) + 2) + 2
    with pytest.raises(UsageError, match=f"x.toml:{line}: known.kernel: a list"):
        _load(tmp_path, GOOD + entry + entry.replace('["7.2", "7.3"]', '"7.3"'))


RULES = (
    GOOD.replace('["soft-roce"]', '["connectx-5"]')
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


def test_rules_are_in_the_case(tmp_path):
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
    with pytest.raises(UsageError, match=r"x.toml:22: full.workload.round: unknown key"):
        _load(tmp_path, text.replace("rounds = 500", "round = 500"))


def test_every_plan_of_the_checkout_can_be_read():
    """Mutation: drop a key that one of them uses."""
    plans = [load(path) for path in sorted(CHECKOUT.glob("testplans/*.toml"))]
    ruled = [plan for plan in plans if plan.rules]
    assert len(ruled) >= 20 and all(plan.title and list(plan.cases()) for plan in plans)
    assert all(list(plan.kernels) == sorted(plan.kernels, key=list(SERIES).index) for plan in plans)
    kinds = {rule.kind for plan in ruled for rule in plan.rules}
    assert set(KINDS) <= kinds, "a kind that no plan uses"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('[faults]\nhow = "dontneed"', r"x.toml:5: faults.how: is called page_loss.method now"),
        ('[faults]\nside = "both"', "faults.side: is called page_loss.side now"),
        ('[matrix]\nhow = ["dontneed"]', "matrix.how: is called matrix.method now"),
        ('[matrix]\n"lost.offset" = [1]', "matrix.lost.offset: is called matrix.absent.offset now"),
        ('[workload.lost]\nprot = "read"', "workload.lost.prot: is called workload.absent.prot now"),
        ("[expect]\nlaws = false", "expect.laws: is called expect.counts now"),
        ('[expect.card_most]\n"faults.open" = 1', "expect.card_most.faults.open: is called expect.card_max"),
        ("[expect.least]\nfaults = 1", "expect.least.faults: is called expect.at_least.faults now"),
        ('[[known]]\nsays = ["x"]', "known.says: is called known.message now"),
        ('[[known]]\nkinds = ["law"]', "known.kinds: 'law' is called 'count' now"),
        ('[page_loss]\nmethod = "peeked"', "page_loss.method: 'peeked' is called 'read_faulted' now"),
        ('[matrix]\nmethod = ["late"]', "matrix.method: 'late' is called 'userfaultfd' now"),
    ],
)
def test_an_older_key_or_value_is_answered_with_its_present_name(tmp_path, text, message):
    """Mutation: take a row out of RENAMED or RENAMED_VALUES: the error only says that the key is unknown."""
    with pytest.raises(UsageError, match=message):
        _load(tmp_path, f'title = "t"\n[workload]\noperation = "write"\n{text}\n')


SHORT = 'title = "t"\n[workload]\noperation = "write"\n'


def test_a_plan_runs_on_all_kernels_and_all_devices_that_meet_its_needs(tmp_path):
    """Mutations: the newest kernel only; soft-RoCE only; Connect-IB, whose events today's drivers do not know, too."""
    plan = _load(tmp_path, SHORT)
    assert plan.kernels == tuple(SERIES) and plan.devices == ("soft-roce", "connectx-5", "connectx-7")
    assert {case.case.workload.mtu_bytes for case in plan.cases()} == {4096}
    devices = {
        'needs = ["odp.rc.flush"]': ("soft-roce",),
        'needs = ["mlx5"]': ("connectx-5", "connectx-7"),
        'needs = ["scheme.memory"]': ("connectx-7",),
        'needs = ["scheme.transport"]\nworkload.local.odp = false\nworkload.remote.odp = false': (
            "connectx-5",
            "connect-ib",
        ),
    }
    for line, expected in devices.items():
        title, _, rest = SHORT.partition("\n[workload]\n")
        body = f"{title}\n{line}\nworkload.{rest}"
        assert _load(tmp_path, body).devices == expected
    assert _load(tmp_path, SHORT + '[[rules]]\nkind = "delay-event"\n').devices == (
        "connectx-5",
        "connectx-7",
    )
    assert len(_load(tmp_path, SHORT + '[module]\nmode = "own"\n').devices) == 3


def test_a_plan_and_a_known_defect_begin_at_a_series(tmp_path):
    """Mutations: begin at the series before; leave `newest` out of a plan; take it into a known defect."""
    entry = '[[known]]\nsince = "7.2"\nkinds = ["count"]\nmessage = ["x"]\ntext = "why"\n'
    plan = _load(tmp_path, 'since = "6.12"\n' + SHORT + entry + entry.replace('since = "7.2"\n', ""))
    assert plan.kernels == ("6.12", "7.2", "7.3", "newest")
    assert [known.kernels for known in plan.known] == [("7.2", "7.3"), ("6.1", "6.12", "7.2", "7.3")]
    with pytest.raises(UsageError, match="since: contradicts matrix.kernel"):
        _load(tmp_path, 'since = "6.12"\n' + SHORT + '[matrix]\nkernel = ["7.3"]\n')


def test_a_need_is_a_name_of_the_table_and_met_by_the_devices_named(tmp_path):
    """Mutations: take any word; ask only devices that a plan does not name."""
    with pytest.raises(UsageError, match="x.toml:1: needs: 'odp.rc.wirte' is none of") as caught:
        _load(tmp_path, 'needs = ["odp.rc.wirte"]\n' + SHORT)
    assert caught.value.hint == "'odp.rc.write'?"
    named = '[matrix]\ndevice = ["connectx-7", "soft-roce"]\n'
    with pytest.raises(UsageError, match="matrix.device: soft-roce does not meet the need scheme.memory"):
        _load(tmp_path, 'needs = ["scheme.memory"]\n' + SHORT + named)
    with pytest.raises(UsageError, match="needs: no device meets odp, odp.rc.flush, rules"):
        _load(tmp_path, 'needs = ["odp.rc.flush"]\n' + SHORT + '[[rules]]\nkind = "delay-event"\n')


def test_a_plan_is_parsed_without_the_code_of_machines():
    """Mutation: import harness.machine in plan/parse.py or in device/__init__.py."""
    program = "import sys, harness.plan.plan; print(*(m for m in sys.modules if m.startswith('harness.')))"
    loaded = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert not [name for name in loaded.stdout.split() if name.startswith("harness.machine")]
