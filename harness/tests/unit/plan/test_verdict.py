from dataclasses import replace
from pathlib import Path

from harness.plan.answer_diff import first_difference
from harness.plan.plan import Expect, Known, Plan, Planned
from harness.plan.verdict import Evidence, judge
from harness.values.answer import Answer, DataCheck, Expectation, FaultRecord, Leak, Trace
from harness.values.case import Case, Region, Workload
from harness.values.histogram import of_values
from harness.values.record import DeviceReport, Finding, Reason
from harness.values.rule import Outcome
from harness.values.symptom import Symptom

GOOD = Answer(
    "x", "done", expectations=(Expectation("faults", 2, 2, "bcc", "one a page"),), data=DataCheck(100, 0)
)


def _planned(expect=None, known=(), trace=False):
    plan = Plan(Path("x.toml"), "t", (), ("7.2",), ("soft-roce",), {}, {}, expect or Expect(), known)
    return Planned(
        plan,
        "7.2",
        Case("x", "soft-roce", Workload("write", 1, Region(1), Region(1)), trace=trace),
        "exact",
        1,
    )


def _kinds(answer, expect=None, known=(), symptoms=(), release="7.2.13-amd64", findings=()):
    verdict, reasons = judge(
        _planned(expect, known), Evidence(release, answer, symptoms, DeviceReport(findings))
    )
    return verdict, [reason.kind for reason in reasons]


def _with(**changes):
    return Answer(**{**vars(GOOD), **changes})


def test_each_kind_of_failure_has_its_own_reason():
    """Mutation: leave out any one check of verdict._reasons."""
    assert _kinds(GOOD) == ("pass", [])
    assert _kinds(_with(expectations=(Expectation("faults", 2, 3, "bcc", ""),))) == ("fail", ["count"])
    assert _kinds(_with(data=DataCheck(100, 1, "byte 3"))) == ("fail", ["data"])
    assert _kinds(_with(leaks=(Leak("qp", 0, 1),))) == ("fail", ["leak"])
    assert _kinds(_with(status="failed", problem="WC_REM_ACCESS_ERR")) == ("fail", ["workload"])
    assert _kinds(_with(trace=Trace(missed=1))) == ("fail", ["count"])
    assert _kinds(GOOD, symptoms=(Symptom("warn", "WARNING: at x"),)) == ("fail", ["console"])
    assert _kinds(GOOD, findings=(Finding("use after destroy", "cq 3", "by qp 4"),)) == ("fail", ["finding"])


def test_counters_of_the_card_must_balance():
    """Mutation: ignore faults that stay open; or what does not add up."""
    for counters, verdict in (
        ({"faults.raised": 3, "faults.resumed": 3, "faults.open": 0, "faults.unknown_resumes": 0}, "pass"),
        ({"faults.raised": 3, "faults.resumed": 1, "faults.failed": 1, "faults.dropped": 1}, "pass"),
        ({"faults.raised": 3, "faults.resumed": 2, "faults.open": 1}, "fail"),
        ({"faults.raised": 3, "faults.resumed": 3, "faults.unknown_resumes": 2}, "fail"),
        ({"faults.raised": 3, "faults.resumed": 2}, "fail"),
    ):
        seen = Evidence("7.2.1", GOOD, device_report=DeviceReport(counters=counters))
        assert judge(_planned(), seen)[0] == verdict


def test_card_and_trace_are_compared_only_where_that_is_expected():
    """Mutation: leave conservation out of judge(), or `expect.conservation`."""
    counters = {"faults.raised": 1, "faults.resumed": 1}
    seen = Evidence("7.2.1", _with(trace=Trace({"works": 2})), device_report=DeviceReport(counters=counters))
    verdict, reasons = judge(_planned(), seen)
    assert verdict == "fail" and "works started: 2, the card sent 1 events" in reasons[0].text
    assert judge(_planned(Expect(conservation=False)), seen)[0] == "pass"


def test_a_count_may_have_a_minimum_where_none_is_expected():
    """Mutation: leave it out of verdict._reasons; take a count that is not there for enough."""
    bounded = Expect(at_least={"invalidations_remote": 2})
    assert _kinds(_with(trace=Trace({"invalidations_remote": 2})), bounded) == ("pass", [])
    assert _kinds(_with(trace=Trace({"invalidations_remote": 1})), bounded) == ("fail", ["count"])
    assert _kinds(GOOD, bounded) == ("fail", ["count"])


def test_a_known_defect_applies_to_its_devices_only():
    """Mutation: ignore `device` of a known entry."""
    other = Known(("7.2",), ("count",), "defect of another driver", ("connectx-5",))
    assert _kinds(GOOD, known=(other,))[0] == "pass"
    broken = _with(expectations=(Expectation("faults", 2, 3, "bcc", ""),))
    assert _kinds(broken, known=(other,))[0] == "fail"
    assert (
        _kinds(broken, known=(Known(("7.2",), ("count",), "ours", ("soft-roce", "connectx-5")),))[0]
        == "known"
    )


def _judge(expect, answer=GOOD, device_report=None, symptoms=(), console=()):
    seen = Evidence("7.2.1", answer, symptoms, device_report or DeviceReport(), console=console)
    verdict, reasons = judge(_planned(expect), seen)
    return [reason.kind for reason in reasons]


def test_a_workload_must_fail_with_the_expected_error():
    """Mutation: take any failure; let one that passes pass."""
    failed = _with(status="failed", problem="round 2: 1 completions missing")
    assert _judge(Expect(workload="fails", problem="completions missing"), failed) == []
    assert _judge(Expect(workload="fails", problem="REM_ACCESS"), failed) == ["workload"]
    assert _judge(Expect(workload="fails")) == ["workload"]
    assert _judge(Expect(workload="any"), failed) == _judge(Expect(workload="any")) == []


def test_a_misspelt_counter_of_the_card_is_a_failure():
    """Mutation: count a name that the card does not report as 0."""
    device_report = DeviceReport(counters={"faults.open": 0, "faults.raised": 0})
    for expect in (Expect(card={"faults.opened": 0}), Expect(card_max={"faults.opened": 1})):
        _, reasons = judge(_planned(expect), Evidence("7.2.1", GOOD, (), device_report))
        assert [reason.text for reason in reasons] == ["card: no counter faults.opened; faults.open?"]
    assert _judge(Expect(card={"faults.open": 0}), device_report=device_report) == []


def test_a_rule_that_never_acted_is_a_failure_unless_it_may():
    """Mutation: look at the first rule only; forget `optional`."""
    hit, missed = Outcome("storm", 3, 1, "3 more"), Outcome("delay-event", 3, 0, "nothing")
    assert _judge(Expect(), device_report=DeviceReport(rules=(hit,))) == []
    assert _judge(Expect(), device_report=DeviceReport(rules=(hit, missed))) == ["rule"]
    assert _judge(Expect(), device_report=DeviceReport(rules=(hit, replace(missed, optional=True)))) == []


def test_expected_findings_counters_and_log_lines_must_occur():
    """Mutation: excuse without asking for it; ask without excusing."""
    findings = (Finding("bad-resume", "fault 0x3", "not open"),)
    assert _judge(Expect(found=("bad-resume",)), device_report=DeviceReport(findings)) == []
    assert _judge(Expect(found=("bad-resume",))) == ["finding"]
    assert _judge(Expect(found=("bad-value",)), device_report=DeviceReport(findings)) == [
        "finding",
        "finding",
    ]
    assert _judge(Expect(may_find=("bad-resume",)), device_report=DeviceReport(findings)) == []
    assert _judge(Expect(may_find=("bad-resume",))) == []
    assert (
        _judge(
            Expect(card={"faults.injected": 2}), device_report=DeviceReport(counters={"faults.injected": 2})
        )
        == []
    )
    assert _judge(Expect(card={"faults.injected": 2})) == ["count"]
    for grown, reasons in ((8, []), (9, ["count"])):
        device_report = DeviceReport(counters={"process.rss_growth_kib": grown})
        assert _judge(Expect(card_max={"process.rss_growth_kib": 8}), device_report=device_report) == reasons
    warned = (Symptom("warn", "WARNING: at umr.c"),)
    assert _judge(Expect(log=("umr.c",)), symptoms=warned, console=("[1] WARNING: at umr.c",)) == []
    assert (
        _judge(Expect(log=("other",)), symptoms=warned, console=("[1] WARNING: at umr.c",)) == ["console"] * 2
    )


def test_latency_bounds_use_exact_percentiles():
    """Mutation: compare with >= or take the mean."""
    faults = tuple(FaultRecord(0, n, 0, 0, 1, 0) for n in (10, 20, 30))
    answer = _with(trace=Trace(faults=faults), operations_ns=(5, 6))
    assert _kinds(answer, Expect(latency={"fault_max_ns": 30, "operation_p50_ns": 5})) == ("pass", [])
    assert _kinds(answer, Expect(latency={"fault_max_ns": 29})) == ("fail", ["latency"])
    assert _kinds(GOOD, Expect(latency={"fault_p50_ns": 1})) == ("fail", ["latency"])


def test_bounds_of_stages_and_of_one_clock():
    """Mutation: bind an exact bound in real time; take the whole fault for any stage; forget calls outside faults."""
    faults = tuple(FaultRecord(0, 100, 0, 0, 1, 0, {"hmm": n}) for n in (10, 20))
    trace = Trace({"works": 2}, (of_values("zaps", "ns", (7, 15)),), faults, whole="works")
    answer = _with(trace=trace)
    for latency, verdict in (
        ({"hmm_max_ns": 20, "zaps_p50_ns": 7, "works_p99_ns": 100}, "pass"),
        ({"hmm_p50_ns": 9}, "fail"),
        ({"zaps_max_ns": 14}, "fail"),
        ({"hmm_max_exact_ns": 19}, "fail"),
        ({"hmm_max_real_ns": 19}, "pass"),
        ({"resumes_max_ns": 1}, "fail"),
    ):
        assert _kinds(answer, Expect(latency=latency))[0] == verdict, latency


def test_a_fault_without_a_record_is_a_reason():
    """Mutation: drop a record silently; count lost ones twice."""
    one = FaultRecord(0, 1, 0, 0, 1, 0)
    for lost, verdict in ((1, "pass"), (0, "fail"), (2, "fail")):
        seen = Trace({"works": 2}, (), (one,), lost, whole="works")
        assert _kinds(_with(trace=seen))[0] == verdict


def test_a_known_failure_must_fail_and_only_on_its_series():
    """Mutation: let a known case pass when it passes, or excuse other failures."""
    known = (Known(("7.2",), ("count", "leak"), "defect"),)
    broken = _with(expectations=(Expectation("faults", 2, 3, "bcc", ""),))
    assert _kinds(broken, known=known)[0] == "known"
    assert _kinds(GOOD, known=known)[0] == "fail"
    assert _kinds(_with(data=DataCheck(9, 9)), known=known)[0] == "fail"
    assert _kinds(broken, known=known, release="7.3.4-amd64")[0] == "fail"
    assert _kinds(GOOD, known=known, release="7.23.1")[0] == "pass"


def test_a_known_defect_excuses_failures_with_its_message_only():
    """Mutation: look at the kinds of reasons alone: any oops is the one that is known."""
    known = (Known(("7.2",), ("console",), "defect", message=("Bad page state",)),)
    named, other = (
        Symptom("bad_page", "BUG: Bad page state in x"),
        Symptom("oops", "BUG: NULL pointer dereference"),
    )
    assert _kinds(GOOD, known=known, symptoms=(named,))[0] == "known"
    assert _kinds(GOOD, known=known, symptoms=(named, other)) == ("fail", ["console", "known"])


def test_expected_counts_without_a_probe_are_a_reason():
    """A patch renames a function. Mutations: leave them out; want those of cards of soft-RoCE."""
    planned = _planned(trace=True)
    expectations = tuple(
        Expectation(f"{name}_remote", 1, 1, "bcc", "") for name in ("faults", "invalidations", "snapshots")
    )
    assert judge(planned, Evidence("7.2.1", _with(expectations=expectations))) == ("pass", ())
    verdict, reasons = judge(planned, Evidence("7.2.1", _with(expectations=expectations[::2])))
    assert verdict == "fail" and [r.text.partition(":")[0] for r in reasons] == ["invalidations"]
    card = replace(planned, case=replace(planned.case, device="connectx-5"))
    assert len(judge(card, Evidence("7.2.1", _with(expectations=expectations)))[1]) == 4
    pinned = Workload("write", 1, Region(1, odp=False), Region(1, odp=False))
    assert (
        judge(
            replace(planned, case=replace(planned.case, workload=pinned)),
            Evidence("7.2.1", _with(expectations=())),
        )[1]
        == ()
    )


def test_wrong_bytes_are_no_expected_failure():
    """Mutation: take any failure for the one that the plan wants."""
    wrong = _with(status="failed", problem="data: round 17, remote: 4096 bytes are wrong")
    assert _kinds(wrong, Expect(workload="fails", problem="r")) == ("fail", ["data"])
    assert _kinds(wrong) == ("fail", ["data"])


def test_an_expected_log_line_excuses_a_warning_only():
    """Nearly each stack of mlx5's fault path has "umr" in it. Mutations: look for it in the stack; in an oops."""
    named = Symptom("warn", "WARNING: umr.c:365 at mlx5r_umr_post_send_wait")
    stack = Symptom("warn", "refcount_t: underflow", excerpt=("mlx5r_umr_update_xlt",))
    oops = Symptom("oops", "BUG: NULL in umr")
    for symptom, kinds in ((named, []), (stack, ["console"]), (oops, ["console"])):
        _, reasons = judge(
            _planned(Expect(log=("umr",))), Evidence("7.2.1", GOOD, (symptom,), console=("umr",))
        )
        assert [reason.kind for reason in reasons] == kinds


def test_a_finding_of_a_race_may_occur_or_not():
    """Mutations: let it excuse other kinds; let a defect that always shows pass beside it."""
    sometimes = Known(("7.2",), ("count",), "a race", sometimes=True)
    broken = _with(expectations=(Expectation("faults", 2, 3, "bcc", ""),))
    assert _kinds(broken, known=(sometimes,))[0] == "known"
    assert _kinds(GOOD, known=(sometimes,))[0] == "pass"
    assert _kinds(_with(data=DataCheck(9, 9)), known=(sometimes,))[0] == "fail"
    assert _kinds(GOOD, known=(sometimes, Known(("7.2",), ("count",), "always")))[0] == "fail"


def test_failures_of_the_machine_are_kept():
    """Mutation: drop `failures`."""
    verdict, reasons = judge(_planned(), Evidence("7.2.1", None, failures=(Reason("console", "panic"),)))
    assert verdict == "fail"
    assert [reason.text for reason in reasons] == ["panic"]


def test_the_panic_of_our_own_nmi_is_no_reason():
    """Mutation: list every symptom of a machine that hung."""
    own_nmi = Symptom("panic", "Kernel panic - not syncing: NMI: Not continuing")
    before = Symptom("hung task", "INFO: task x blocked")
    hang = (Reason("hang", "no answer"),)
    _, reasons = judge(_planned(), Evidence("7.2.1", None, (before, own_nmi), failures=hang))
    assert [reason.kind for reason in reasons] == ["hang", "console"]
    _, reasons = judge(_planned(), Evidence("7.2.1", None, (own_nmi,)))
    assert [reason.kind for reason in reasons] == ["console"]


def test_first_difference_names_the_field():
    """Mutation: compare only the top level."""
    assert first_difference(GOOD, GOOD) == ""
    assert first_difference(GOOD, _with(elapsed_ns=5)) == "elapsed_ns: 0 != 5"
    one, two = _with(operations_ns=(1, 2)), _with(operations_ns=(1, 3))
    assert first_difference(one, two) == "operations_ns[1]: 2 != 3"
