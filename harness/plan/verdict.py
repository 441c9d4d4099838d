"""From an answer to a verdict: what the plan expects against what was seen."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from harness.plan import conservation
from harness.plan.plan import Expect, Known, Planned
from harness.values.answer import Answer, Trace
from harness.values.histogram import percentile
from harness.values.record import Reason, Witness
from harness.values.symptom import Symptom

# How a machine that hangs is made to say where: the panic is our own question, not a symptom.
NMI_PANIC = "NMI: Not continuing"
FINDINGS_MOST = 20
SHARES = {"p50": 0.5, "p90": 0.9, "p99": 0.99, "max": 1.0}


@dataclass(frozen=True)
class Seen:
    """All that was seen of a case on the kernel `release`; `failures` are what ended it early.

    `scheme` is how the device was to tell that kernel of page faults.
    """

    release: str
    answer: Answer | None
    symptoms: tuple[Symptom, ...] = ()
    witness: Witness = field(default_factory=Witness)
    failures: tuple[Reason, ...] = ()
    scheme: str = ""


def judge(planned: Planned, seen: Seen) -> tuple[str, tuple[Reason, ...]]:
    """Verdict and reasons of a case that ran."""
    expect = planned.plan.expect
    reasons = (*seen.failures, *_console(expect, seen.symptoms, seen.failures))
    if seen.answer is not None:
        reasons += tuple(_reasons(expect, seen.answer))
    if expect.findings:
        reasons += tuple(_findings(seen.witness))
    if expect.conservation:
        trace = seen.answer.trace if seen.answer is not None else Trace()
        reasons += tuple(conservation.check(seen.witness, trace, seen.scheme))
    known = [k for k in planned.plan.known if k.applies(seen.release, planned.case.device)]
    if known:
        return _judge_known(known, reasons)
    return ("fail" if reasons else "pass"), reasons


def _judge_known(known: list[Known], reasons: tuple[Reason, ...]) -> tuple[str, tuple[Reason, ...]]:
    kinds = {kind for entry in known for kind in entry.kinds}
    texts = tuple(Reason("known", entry.text) for entry in known)
    unexpected = tuple(reason for reason in reasons if reason.kind not in kinds)
    if unexpected:
        return "fail", unexpected + texts
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
        yield Reason("console", f"{symptom.kind}: {symptom.headline}")


def _reasons(expect: Expect, answer: Answer) -> Iterator[Reason]:
    if answer.status == "failed":
        yield Reason("workload", answer.problem)
    if answer.trace.missed:
        yield Reason("law", f"{answer.trace.missed} probe hits were missed: the counts are no witness")
    if expect.laws and answer.status == "done":
        for law in answer.laws:
            if not law.holds:
                yield Reason(
                    "law",
                    f"{law.name}: expected {law.expected} ({law.text}), observed {law.observed} by {law.witness}",
                )
    if expect.faults is not None:
        seen = answer.trace.counts.get("faults", 0)
        if seen != expect.faults:
            yield Reason("law", f"expected {expect.faults} faults, traced {seen}")
    if expect.data and answer.data.wrong:
        yield Reason(
            "data", f"{answer.data.wrong} of {answer.data.bytes_checked} bytes are wrong: {answer.data.first}"
        )
    if expect.leaks:
        for leak in answer.leaks:
            yield Reason("leak", f"{leak.resource}: {leak.before} before, {leak.after} after")
    yield from _latency(expect, answer)


def _findings(witness: Witness) -> Iterator[Reason]:
    """The first findings are reasons; a card that finds thousands has made its point."""
    for found in witness.findings[:FINDINGS_MOST]:
        yield Reason("finding", f"{found.kind}: {found.subject}: {found.detail}")
    if len(witness.findings) > FINDINGS_MOST:
        yield Reason("finding", f"and {len(witness.findings) - FINDINGS_MOST} more")


def _latency(expect: Expect, answer: Answer) -> Iterator[Reason]:
    for key, bound in expect.latency.items():
        stage, share, _ = key.rsplit("_", 2)
        if stage == "operation":
            values = answer.operations_ns
        else:
            values = tuple(fault.duration_ns for fault in answer.trace.faults)
        if not values:
            yield Reason("latency", f"{key}: nothing was measured")
        elif percentile(values, SHARES[share]) > bound:
            yield Reason("latency", f"{key}: {percentile(values, SHARES[share])} ns, at most {bound}")
