"""From an answer to a verdict: what the plan expects against what was seen."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from harness.device.catalogue import DEVICES
from harness.plan import conservation, module
from harness.plan.plan import Expect, Known, Planned
from harness.values.answer import Answer, Trace
from harness.values.case import TRANSFERS
from harness.values.histogram import percentile
from harness.values.record import DeviceReport, Reason
from harness.values.symptom import Symptom

# How a machine that hangs is made to say where: the panic is our own question, not a symptom.
NMI_PANIC = "NMI: Not continuing"
MAX_FINDINGS = 20
# How the guest says that bytes are wrong in the midst of what it does.
WRONG = "bytes are wrong"
LAWS = ("faults", "invalidations", "snapshots")
CARD_LAWS = ("events", "works", "resumes", "translations")
SHARES = {"p50": 0.5, "p90": 0.9, "p99": 0.99, "max": 1.0}


@dataclass(frozen=True)
class Evidence:
    """All that was seen of a case on the kernel `release`; `failures` are what ended it early.

    `scheme` is how the device was to tell that kernel of page faults, `firmware` what it states of them.
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
    """Verdict and reasons of a case that ran."""
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
            "known", f"did not fail ({' or '.join(sorted(kinds))}) as known: is it mended in this kernel?"
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
        yield Reason("console", f"{symptom.kind}: {symptom.headline}{_told(symptom)}")


def _told(symptom: Symptom) -> str:
    """Where it is from, as far as is known."""
    return f"; fingerprint: {symptom.fingerprint}" if symptom.fingerprint else ""


def _reasons(expect: Expect, answer: Answer) -> Iterator[Reason]:
    yield from _end(expect, answer)
    if answer.trace.missed:
        yield Reason("law", f"{answer.trace.missed} probe hits were missed: the counts are no witness")
    yield from _unrecorded(answer.trace)
    if expect.laws and answer.status == "done":
        for law in answer.expectations:
            if not law.holds:
                yield Reason(
                    "law",
                    f"{law.name}: expected {law.expected} ({law.text}), observed {law.observed} by {law.source}",
                )
    if expect.faults is not None:
        seen = answer.trace.counts.get("faults", 0)
        if seen != expect.faults:
            yield Reason("law", f"expected {expect.faults} faults, traced {seen}")
    for name, least in expect.least.items():
        counted = answer.trace.counts.get(name, 0)
        if counted < least and answer.status == "done":
            yield Reason("law", f"{name}: at least {least}, traced {counted}")
    if expect.data and answer.data.wrong:
        yield Reason(
            "data", f"{answer.data.wrong} of {answer.data.bytes_checked} bytes are wrong: {answer.data.first}"
        )
    if expect.leaks:
        for leak in answer.leaks:
            yield Reason("leak", f"{leak.resource}: {leak.before} before, {leak.after} after")


def _uncounted(planned: Planned, answer: Answer) -> Iterator[Reason]:
    """Laws that nothing witnessed: of a driver whose functions have other names now too little is known."""
    work = planned.case.workload
    paged = work.local.odp or work.remote.odp
    if not (planned.plan.expect.laws and planned.case.trace and paged and answer.status == "done"):
        return
    if work.operation not in TRANSFERS:
        return
    wanted = (*LAWS, *(CARD_LAWS if DEVICES[planned.case.device].plugged else ()))
    for stage in wanted:
        if not any(law.name.startswith(stage) for law in answer.expectations):
            yield Reason("law", f"{stage}: not counted on this kernel: its symbol is missing")


def _end(expect: Expect, answer: Answer) -> Iterator[Reason]:
    """How the work requests ended, against how they are to end."""
    failed = answer.status == "failed"
    if failed and WRONG in answer.problem and WRONG not in expect.problem:
        yield Reason("data", answer.problem)
    elif failed and expect.workload == "done":
        yield Reason("workload", answer.problem)
    elif failed and expect.problem not in answer.problem:
        yield Reason("workload", f"was to fail with {expect.problem!r}, failed with {answer.problem!r}")
    elif not failed and expect.workload == "fails":
        yield Reason("workload", "was to fail and did not")


def _findings(expect: Expect, device_report: DeviceReport) -> Iterator[Reason]:
    """The first findings are reasons; a card that finds thousands has made its point."""
    for kind in expect.found:
        if not any(found.kind == kind for found in device_report.findings):
            yield Reason("finding", f"{kind}: was to be found and was not")
    findings = [
        found for found in device_report.findings if found.kind not in (*expect.found, *expect.may_find)
    ]
    for found in findings[:MAX_FINDINGS]:
        yield Reason("finding", f"{found.kind}: {found.subject}: {found.detail}")
    if len(findings) > MAX_FINDINGS:
        yield Reason("finding", f"and {len(findings) - MAX_FINDINGS} more")


def _card(expect: Expect, seen: Evidence) -> Iterator[Reason]:
    """What rules did, what the card counted, what the driver said of it."""
    for outcome in seen.device_report.rules:
        if not outcome.hits and not outcome.optional:
            yield Reason("rule", f"{outcome.kind} never acted: {outcome.text}")
    for name, wanted in expect.card.items():
        counted = seen.device_report.counters.get(name, 0)
        if counted != wanted:
            yield Reason("law", f"card: {name}: expected {wanted}, counted {counted}")
    for name, most in expect.card_most.items():
        counted = seen.device_report.counters.get(name, 0)
        if counted > most:
            yield Reason("law", f"card: {name}: {counted}, at most {most}")
    for text in expect.log:
        if not any(text in line for line in seen.console):
            yield Reason("console", f"{text!r} was to be on the console and is not")


def _module(planned: Planned, seen: Evidence) -> Iterator[Reason]:
    """What the kernel module saw, where the case used it."""
    use, expect = planned.plan.module, planned.plan.expect
    if use is None or seen.answer is None:
        return
    report = seen.answer.module
    for problem in module.check(
        use, expect.module, expect.refused, report, seen.device_report, seen.firmware
    ):
        yield Reason("law", f"module: {problem}")


def _unrecorded(trace: Trace) -> Iterator[Reason]:
    """Each fault has a record, or is counted as one whose record was lost."""
    whole = trace.counts.get(trace.whole, 0)
    if trace.whole and len(trace.faults) + trace.lost != whole:
        kept = f"{len(trace.faults)} have a record, {trace.lost} are known to have lost theirs"
        yield Reason("law", f"records: {whole} {trace.whole}, of which {kept}")


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
    """In ns: of operations, of whole faults, of a stage in each fault; of other stages' calls, to 6 %."""
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
