"""Compare two runs of the same cases: regressions, improvements, and what is inconclusive.

Results are compared by case; `seed=N` at the end of a case's name is one of several runs of the same case.
Latency in exact time is compared over the seeds, in instructions; in real time by a rank test over the runs. A machine
with a card counts instructions but waits in real time ("icount"): only the minimum of each stage is compared.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import median

from harness.campaign.metrics import MINIMUM, SEED, WHOLE, Metric, samples, split
from harness.campaign.outcomes import (
    FAILED,
    IMPROVEMENT,
    INCONCLUSIVE,
    REGRESSION,
    WELL,
    Difference,
    compare_outcomes,
    how_ended,
    overall,
    severity,
)
from harness.campaign.statistics import (
    CONFIDENCE,
    MIN_RUNS,
    interval,
    rank_test,
    significant,
)
from harness.values.record import Record

ICOUNT = "icount"

MIN_NOISE_BAND = 5.0
"""Minimum noise band in instructions; the kprobe hash-chain position shifts a stage's minimum by up to this much."""

EXECUTED = ("pass", "known", "fail")
# What two runs must have in common for their metrics to be comparable.
ENVIRONMENT = ("kernel", "qemu", "image", "clock", "accelerator", "device")


@dataclass(frozen=True)
class Comparison:
    """The verdict over all cases, the differences it rests on, every metric, and what differs in the environments.

    `failing` are the cases that fail on both sides alike, `known` those with a known failure on both.
    """

    verdict: str
    differences: tuple[Difference, ...]
    metrics: tuple[Metric, ...] = ()
    environment: tuple[str, ...] = ()
    failing: tuple[str, ...] = ()
    known: tuple[str, ...] = ()

    @property
    def failing_on_both(self) -> tuple[str, ...]:
        """List the cases that fail on both sides, known failures included."""
        return (*self.failing, *self.known)


@dataclass(frozen=True)
class _Measured:
    """A metric and the values of its runs on both sides."""

    metric: Metric
    before: Sequence[float]
    after: Sequence[float]


def compare(
    baseline: Sequence[Record], patched: Sequence[Record], bands: Mapping[str, float] | None = None
) -> Comparison:
    """Compare two runs.

    `bands` are noise bands in instructions by metric name; without them only minima are conclusive. A regression
    outranks an improvement. Inconclusive where no case was executed on both sides.
    """
    one, other = by_case(baseline), by_case(patched)
    # A run stops after so many failures: nothing is known of the cases after them.
    stopped = any(how_ended(record) == FAILED for record in baseline)
    differences: list[Difference] = []
    mixed: list[str] = []
    measured: list[_Measured] = []
    failing: list[str] = []
    known: list[str] = []
    for case in sorted({*one, *other}):
        before, after = one.get(case, []), other.get(case, [])
        outcomes = compare_outcomes(case, before, after, stopped)
        differences += outcomes
        alike = WELL if outcomes else min(severity(before), severity(after))
        if alike:
            (failing if alike == FAILED else known).append(case)
        if before and after and _mixed_clocks(before, after):
            mixed.append(case)
        elif not outcomes and before and all(_sound(record) for record in (*before, *after)):
            measured += _measure(case, before, after, bands)
    metrics = [each.metric for each in measured]
    differences += _not_comparable(mixed)
    for each in measured:
        differences += _latency(each, _tests(each.metric, metrics), bands is not None)
    differences += _too_few(metrics)
    ran = set(one) & set(other) and any(record.verdict in EXECUTED for record in (*baseline, *patched))
    return Comparison(
        overall(differences) if ran else INCONCLUSIVE,
        tuple(differences),
        tuple(metrics),
        _environment_differences(baseline, patched),
        tuple(failing),
        tuple(known),
    )


def with_more(comparison: Comparison, differences: Sequence[Difference]) -> Comparison:
    """Add differences that are in no record."""
    every = (*comparison.differences, *differences)
    verdict = overall(every) if differences else comparison.verdict
    return replace(comparison, differences=every, verdict=verdict)


def by_case(records: Iterable[Record]) -> dict[str, list[Record]]:
    """Group runs by case, whatever their seeds."""
    cases: dict[str, list[Record]] = defaultdict(list)
    for record in records:
        cases[SEED.sub("", record.case.id)].append(record)
    return cases


def environment_of(records: Iterable[Record]) -> dict[str, str]:
    """Return the values of each name in ENVIRONMENT over some records, joined by commas."""
    every = list(records)
    values = {name: sorted({r.environment.get(name, "") for r in every} - {""}) for name in ENVIRONMENT}
    return {name: ", ".join(each) for name, each in values.items() if each}


def _sound(record: Record) -> bool:
    return record.verdict in ("pass", "known") and record.answer is not None


def _measure(
    case: str, before: Sequence[Record], after: Sequence[Record], bands: Mapping[str, float] | None
) -> Iterable[_Measured]:
    clocks = {record.environment.get("clock") for record in (*before, *after)}
    exact = clocks <= {"exact", ICOUNT}
    one, other = samples(before, exact), samples(after, exact)
    for name in sorted(set(one) & set(other)):
        stage, statistic = split(name)
        if ICOUNT in clocks and statistic != MINIMUM:
            continue
        values = (list(one[name].values()), list(other[name].values()))
        baseline, patched = (float(median(each)) for each in values)
        change = _paired(one[name], other[name]) if exact else patched - baseline
        band = (bands or {}).get(name, MIN_NOISE_BAND if exact and statistic == MINIMUM else 0.0)
        counts = (len(values[0]), len(values[1]))
        metric = Metric(case, stage, statistic, exact, baseline, patched, counts, float(band), change)
        yield _Measured(metric, *values)


def _paired(before: Mapping[str, float], after: Mapping[str, float]) -> float:
    """Return the median difference of runs with the same seed; where no seed is on both sides, of the medians."""
    both = [after[run] - value for run, value in before.items() if run in after]
    return float(median(both)) if both else float(median(after.values()) - median(before.values()))


def _latency(measured: _Measured, tests: int, banded: bool) -> list[Difference]:
    """Return the difference that a metric makes, if any. In real time it is one of `tests`.

    The minimum of a stage in instructions is a property of the code. Everything else also varies with what else the
    machine does, which any change shifts: there a rank test must tell the runs of both sides apart, too.
    """
    metric = measured.metric
    verdict = REGRESSION if metric.change > 0 else IMPROVEMENT
    if metric.exact and abs(metric.change) <= metric.threshold:
        return []
    if not metric.by_code and (min(metric.runs) < MIN_RUNS or not metric.change):
        return []
    p = 0.0 if metric.by_code else rank_test(measured.before, measured.after)
    if not significant(p, 1 if metric.exact else tests):
        return []
    if not metric.exact:
        low, high = (bound / 1000 for bound in interval(measured.before, measured.after))
        noise = f"p = {p:.1e}, {CONFIDENCE:.0%} interval {low:+.1f} to {high:+.1f}"
    elif banded:
        noise = f"noise band of no-op builds: +/-{metric.noise_band:.0f}, threshold: {metric.threshold:.0f}"
    else:
        noise = "noise band not measured (`regress` measures it)"
        verdict = verdict if metric.by_code else INCONCLUSIVE
    text = f"{metric.title}: {metric.values}; {noise}"
    return [Difference(verdict, metric.case, text, metric=metric.name)]


def _tests(metric: Metric, metrics: Sequence[Metric]) -> int:
    """Count the tests in real time that this is one of: whole latencies are a family of their own."""
    whole = metric.stage in WHOLE
    return sum(not each.exact and (not whole or each.stage in WHOLE) for each in metrics)


def _mixed_clocks(before: Sequence[Record], after: Sequence[Record]) -> bool:
    """Return True if only one side counted instructions. What could not run has no clock."""
    clocks = {record.environment.get("clock") for record in (*before, *after)} - {None}
    return len({clock in ("exact", ICOUNT) for clock in clocks}) > 1


def _not_comparable(cases: Sequence[str]) -> list[Difference]:
    text = "latency: in instructions on one side, in real time on the other"
    return [Difference(INCONCLUSIVE, _named(cases), text)] if cases else []


def _too_few(metrics: Sequence[Metric]) -> list[Difference]:
    """Return a difference for cases in real time that ran too few times for a rank test."""
    few = {metric.case: min(metric.runs) for metric in metrics if not metric.exact}
    few = {case: runs for case, runs in few.items() if runs < MIN_RUNS}
    if not few:
        return []
    text = (
        f"latency in real time: {min(few.values())} runs, at least {MIN_RUNS} a side are needed (run --seeds)"
    )
    return [Difference(INCONCLUSIVE, _named(list(few)), text)]


def _named(cases: Sequence[str]) -> str:
    return cases[0] if len(cases) == 1 else f"{len(cases)} cases"


def _environment_differences(baseline: Sequence[Record], patched: Sequence[Record]) -> tuple[str, ...]:
    """List what differs between the environments of both sides, a line each."""
    one, other = environment_of(baseline), environment_of(patched)
    return tuple(
        f"{name}: {one.get(name, '-')} and {other.get(name, '-')}"
        for name in ENVIRONMENT
        if one.get(name) != other.get(name)
    )
