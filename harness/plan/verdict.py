"""Judge a case: compare what its plan expects with what was seen."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from harness.device.traits import TRAITS
from harness.plan import conservation, module_verdict
from harness.plan.expect import Expect, Known
from harness.plan.plan import Planned
from harness.values.answer import Answer, Trace
from harness.values.case import TRANSFERS
from harness.values.histogram import percentile
from harness.values.record import DeviceReport, Reason
from harness.values.symptom import Symptom

# The panic by which we make a hanging machine print its stack; no symptom.
NMI_PANIC = "NMI: Not continuing"
MAX_FINDINGS = 20
# The text of the guest when bytes are wrong during its work.
WRONG = "bytes are wrong"
COUNTS = ("faults", "invalidations", "snapshots")
CARD_COUNTS = ("events", "works", "resumes", "translations")
SHARES = {"p50": 0.5, "p90": 0.9, "p99": 0.99, "max": 1.0}


@dataclass(frozen=True)
class Evidence:
    """All that was seen of a case on the kernel `release`; `failures` ended it early.

    `scheme` is how the device reports page faults to that kernel, `firmware` the capabilities that it states.
    """

    release: str
    answer: Answer | None
    symptoms: tuple[Symptom, ...] = ()
    device_report: DeviceReport = field(default_factory=DeviceReport)
    failures: tuple[Reason, ...] = ()
    scheme: str = ""
    console: tuple[str, ...] = ()
    firmware: Mapping[str, Mapping[str, tuple[str, ...]]] = field(default_factory=dict)


def judge(planned: Planned, seen: Evidence) -> tuple[str, tuple[Reason, ...]]:
    """Return verdict and reasons of a case that ran."""
    expect = planned.plan.expect
    reasons = (*seen.failures, *_console(expect, seen.symptoms, seen.failures))
    if seen.answer is not None:
        reasons += tuple(_reasons(expect, seen.answer))
        reasons += tuple(_uncounted(planned, seen.answer))
        reasons += tuple(_latency(expect, seen.answer, planned.clock))
    if expect.findings:
        reasons += tuple(_findings(expect, seen.device_report))
    if expect.conservation:
        trace = seen.answer.trace if seen.answer is not None else Trace()
        reasons += tuple(conservation.check(seen.device_report, trace, seen.scheme))
    reasons += tuple(_card(expect, seen))
    reasons += tuple(_module(planned, seen))
    known = [k for k in planned.plan.known if k.applies(seen.release, planned.case.device)]
    if known:
        return _judge_known(known, reasons)
    return ("fail" if reasons else "pass"), reasons


def _judge_known(known: list[Known], reasons: tuple[Reason, ...]) -> tuple[str, tuple[Reason, ...]]:
    kinds = {kind for entry in known for kind in entry.kinds}
    texts = tuple(Reason("known", entry.text) for entry in known)
    unexpected = tuple(reason for reason in reasons if not any(entry.excuses(reason) for entry in known))
    if unexpected:
        return "fail", unexpected + texts
    if not reasons and all(entry.sometimes for entry in known):
        return "pass", ()
    if not reasons:
        gone = Reason(
            "known",
            f"unexpected pass: no failure ({' or '.join(sorted(kinds))}); is the defect fixed in this kernel?",
        )
        return "fail", (gone, *texts)
    return "known", reasons + texts


def _console(expect: Expect, symptoms: tuple[Symptom, ...], failures: tuple[Reason, ...]) -> Iterator[Reason]:
    if expect.console == "any" or any(f.kind == "console" for f in failures):
        return
    for symptom in symptoms:
        if failures and NMI_PANIC in symptom.headline:
            continue
        if symptom.kind == "warn" and any(text in symptom.headline for text in expect.log):
            continue
        yield Reason("console", f"{symptom.kind}: {symptom.headline}{_fingerprint(symptom)}")


def _fingerprint(symptom: Symptom) -> str:
    """Return its fingerprint as the end of a reason, nothing if it has none."""
    return f"; fingerprint: {symptom.fingerprint}" if symptom.fingerprint else ""


def _reasons(expect: Expect, answer: Answer) -> Iterator[Reason]:
    yield from _end(expect, answer)
    if answer.trace.missed:
        yield Reason("count", f"{answer.trace.missed} probe hits were missed: the counts prove nothing")
    yield from _unrecorded(answer.trace)
    if expect.counts and answer.status == "done":
        for one in answer.expectations:
            if not one.holds:
                yield Reason(
                    "count",
                    f"{one.name}: expected {one.expected} ({one.text}), observed {one.observed} by {one.source}",
                )
    if expect.faults is not None:
        seen = answer.trace.counts.get("faults", 0)
        if seen != expect.faults:
            yield Reason("count", f"expected {expect.faults} faults, traced {seen}")
    for name, minimum in expect.at_least.items():
        counted = answer.trace.counts.get(name, 0)
        if counted < minimum and answer.status == "done":
            yield Reason("count", f"{name}: at least {minimum}, traced {counted}")
    if expect.data and answer.data.wrong:
        yield Reason(
            "data", f"{answer.data.wrong} of {answer.data.bytes_checked} bytes are wrong: {answer.data.first}"
        )
    if expect.leaks:
        for leak in answer.leaks:
            yield Reason("leak", f"{leak.resource}: {leak.before} before, {leak.after} after")


def _uncounted(planned: Planned, answer: Answer) -> Iterator[Reason]:
    """Yield expected counts that nothing was counted for: functions of the driver have other names now."""
    work = planned.case.workload
    paged = work.local.odp or work.remote.odp
    if not (planned.plan.expect.counts and planned.case.trace and paged and answer.status == "done"):
        return
    if work.operation not in TRANSFERS:
        return
    stages = (*COUNTS, *(CARD_COUNTS if TRAITS[planned.case.device].plugged else ()))
    for stage in stages:
        if not any(one.name.startswith(stage) for one in answer.expectations):
            yield Reason("count", f"{stage}: not counted on this kernel: its symbol is missing")


def _end(expect: Expect, answer: Answer) -> Iterator[Reason]:
    """Compare the end of the work requests with the expected one."""
    failed = answer.status == "failed"
    if failed and WRONG in answer.problem and WRONG not in expect.problem:
        yield Reason("data", answer.problem)
    elif failed and expect.workload == "done":
        yield Reason("workload", answer.problem)
    elif failed and expect.problem not in answer.problem:
        yield Reason("workload", f"expected to fail with {expect.problem!r}, failed with {answer.problem!r}")
    elif not failed and expect.workload == "fails":
        yield Reason("workload", "expected to fail, and did not")


def _findings(expect: Expect, device_report: DeviceReport) -> Iterator[Reason]:
    """Yield the first findings as reasons; thousands of them say no more."""
    for kind in expect.found:
        if not any(finding.kind == kind for finding in device_report.findings):
            yield Reason("finding", f"{kind}: expected, and not found")
    findings = [
        finding for finding in device_report.findings if finding.kind not in (*expect.found, *expect.may_find)
    ]
    for finding in findings[:MAX_FINDINGS]:
        yield Reason("finding", f"{finding.kind}: {finding.subject}: {finding.detail}")
    if len(findings) > MAX_FINDINGS:
        yield Reason("finding", f"and {len(findings) - MAX_FINDINGS} more")


def _card(expect: Expect, seen: Evidence) -> Iterator[Reason]:
    """Check what rules did, what the card counted, what the driver logged."""
    for outcome in seen.device_report.rules:
        if not outcome.hits and not outcome.optional:
            yield Reason("rule", f"{outcome.kind} never acted: {outcome.text}")
    counters = seen.device_report.counters
    for name in (*expect.card, *expect.card_max):
        # The card reports all of these, also those that are 0; a misspelt name would pass as 0.
        if name.startswith("faults.") and counters and name not in counters:
            near = difflib.get_close_matches(name, counters, 1)
            yield Reason("count", f"card: no counter {name}" + (f"; {near[0]}?" if near else ""))
    for name, count in expect.card.items():
        counted = counters.get(name, 0)
        if counted != count:
            yield Reason("count", f"card: {name}: expected {count}, counted {counted}")
    for name, maximum in expect.card_max.items():
        counted = counters.get(name, 0)
        if counted > maximum:
            yield Reason("count", f"card: {name}: {counted}, at most {maximum}")
    for text in expect.log:
        if not any(text in line for line in seen.console):
            yield Reason("console", f"{text!r} is expected on the console, and is not there")


def _module(planned: Planned, seen: Evidence) -> Iterator[Reason]:
    """Check what the kernel module saw, where the case used it."""
    use, expect = planned.plan.module, planned.plan.expect
    if use is None or seen.answer is None:
        return
    report = seen.answer.module
    for problem in module_verdict.check(
        use, expect.module, expect.refused, report, seen.device_report, seen.firmware
    ):
        yield Reason("count", f"module: {problem}")


def _unrecorded(trace: Trace) -> Iterator[Reason]:
    """Check that each fault has a record, or is counted as one whose record was lost."""
    whole = trace.counts.get(trace.whole, 0)
    if trace.whole and len(trace.faults) + trace.lost != whole:
        split = f"{len(trace.faults)} have a record, {trace.lost} are counted as lost"
        yield Reason("count", f"records: {whole} {trace.whole}, of which {split}")


def _latency(expect: Expect, answer: Answer, clock: str) -> Iterator[Reason]:
    for key, bound in expect.latency.items():
        name = key.removesuffix("_ns").removesuffix("_exact").removesuffix("_real")
        if key not in (f"{name}_ns", f"{name}_{clock}_ns"):
            continue
        stage, _, share = name.rpartition("_")
        seen = _quantile(stage, SHARES[share], answer)
        if seen is None:
            yield Reason("latency", f"{key}: nothing was measured")
        elif seen > bound:
            yield Reason("latency", f"{key}: {seen} ns, at most {bound}")


def _quantile(stage: str, share: float, answer: Answer) -> int | None:
    """Return a quantile in ns of operations, whole faults or a stage in each fault; of other stages' calls, to 6 %."""
    faults = answer.trace.faults
    if stage == "operation":
        values = answer.operations_ns
    elif stage in ("fault", answer.trace.whole):
        values = tuple(fault.duration_ns for fault in faults)
    else:
        values = tuple(fault.inner_ns[stage] for fault in faults if stage in fault.inner_ns)
    if values:
        return percentile(values, share)
    calls = next((h for h in answer.trace.histograms if h.name == stage and h.samples), None)
    return calls.quantile(share) if calls is not None else None
