"""Two runs of the same cases: what got worse, what got better, and what cannot be told.

Results are compared by case; `seed=N` at the end of a case's name is one of several runs of the same case.
Latency in exact time is compared over the seeds, in instructions; in real time by a rank test over the runs.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median

from scipy import stats

from harness.values.histogram import percentile
from harness.values.record import Record

BETTER, SAME, WORSE, CANNOT_TELL = "better", "same", "worse", "cannot tell"
RUNS_LEAST = 8
"""Runs of a case on each side, below which a rank test in real time says nothing."""

SIGNIFICANT = 0.01
SEED = re.compile(r"/seed=\d+$")
RAN = ("pass", "known", "fail")
# What two runs must have in common for their figures to mean anything.
ENVIRONMENT = ("kernel", "qemu", "image", "clock", "accelerator", "device")


@dataclass(frozen=True)
class Figure:
    """One latency of one case: medians over the runs, in ns (`exact`: instructions), and the band that is noise."""

    case: str
    stage: str
    exact: bool
    base: float
    patched: float
    runs: tuple[int, int]
    band: float

    @property
    def change(self) -> float:
        """Patched minus base."""
        return self.patched - self.base


@dataclass(frozen=True)
class Change:
    """One difference that a verdict rests on: WORSE, BETTER or CANNOT_TELL, about which case, and the evidence."""

    verdict: str
    case: str
    text: str


@dataclass(frozen=True)
class Comparison:
    """The verdict over all cases, what it rests on, every figure, and what differs in the environments."""

    verdict: str
    changes: tuple[Change, ...]
    figures: tuple[Figure, ...]
    environment: tuple[str, ...]


def compare(
    base: Sequence[Record], patched: Sequence[Record], bands: Mapping[str, float] | None = None
) -> Comparison:
    """Compare two runs. `bands` says by stage how many ns a change that changes nothing moves it (default 0).

    Worse outranks better; without a difference it is the same; where no case ran on both sides it cannot be told.
    """
    one, other = _by_case(base), _by_case(patched)
    changes: list[Change] = []
    figures: list[Figure] = []
    for case in sorted({*one, *other}):
        before, after = one.get(case, []), other.get(case, [])
        outcomes = _outcomes(case, before, after)
        changes += outcomes
        if outcomes or not before or not all(_sound(record) for record in (*before, *after)):
            continue
        for figure, samples in _figures(case, before, after, bands or {}):
            figures.append(figure)
            changes += _latency(figure, *samples)
    ran = set(one) & set(other) and any(record.verdict in RAN for record in (*base, *patched))
    return Comparison(
        _overall(changes, bool(ran)), tuple(changes), tuple(figures), _environments(base, patched)
    )


def _by_case(records: Iterable[Record]) -> dict[str, list[Record]]:
    found: dict[str, list[Record]] = defaultdict(list)
    for record in records:
        found[SEED.sub("", record.case.id)].append(record)
    return found


def _sound(record: Record) -> bool:
    return record.verdict in ("pass", "known") and record.answer is not None


def _outcomes(case: str, before: Sequence[Record], after: Sequence[Record]) -> list[Change]:
    """What differs before any figure: new failures, old ones that are gone, cases that ran on one side only."""
    if not before or not after:
        return [Change(CANNOT_TELL, case, "ran on one side only")]
    failed = ([r for r in before if r.verdict == "fail"], [r for r in after if r.verdict == "fail"])
    not_run = next((r for r in (*before, *after) if r.verdict == "error"), None)
    if failed[1] and not failed[0]:
        reasons = "; ".join(f"{reason.kind}: {reason.text}" for reason in failed[1][0].reasons)
        return [Change(WORSE, case, f"fails in {len(failed[1])} of {len(after)} runs: {reasons}")]
    if failed[0] and not failed[1] and not not_run:
        reasons = "; ".join(f"{reason.kind}: {reason.text}" for reason in failed[0][0].reasons)
        return [Change(BETTER, case, f"no longer fails: {reasons}")]
    if not_run is not None:
        return [Change(CANNOT_TELL, case, "; ".join(reason.text for reason in not_run.reasons))]
    return []


def _figures(
    case: str, before: Sequence[Record], after: Sequence[Record], bands: Mapping[str, float]
) -> Iterable[tuple[Figure, tuple[list[float], list[float]]]]:
    exact = all(record.environment.get("clock") == "exact" for record in (*before, *after))
    mine, theirs = _samples(before), _samples(after)
    for stage in sorted(set(mine) & set(theirs)):
        samples = (mine[stage], theirs[stage])
        counts = (len(samples[0]), len(samples[1]))
        base, patched = (float(median(values)) for values in samples)
        yield Figure(case, stage, exact, base, patched, counts, float(bands.get(stage, 0))), samples


def _samples(records: Sequence[Record]) -> dict[str, list[float]]:
    """Per stage the median of each run: whole operations, whole faults, and the stages within them."""
    found: dict[str, list[float]] = defaultdict(list)
    for record in records:
        assert record.answer is not None
        values: dict[str, list[int]] = {"operation": list(record.answer.operations_ns)}
        values["fault"] = [fault.duration_ns for fault in record.answer.trace.faults]
        for stage, durations in values.items():
            if durations:
                found[stage].append(float(percentile(tuple(durations), 0.5)))
    return found


def _latency(figure: Figure, before: list[float], after: list[float]) -> list[Change]:
    if figure.exact:
        if abs(figure.change) <= figure.band:
            return []
        said = (
            f"{figure.stage}: {figure.change:+.0f} instructions ({figure.base:.0f} to {figure.patched:.0f})"
        )
        text = f"{said}; changes that change nothing move it by up to {figure.band:.0f}"
        return [Change(WORSE if figure.change > 0 else BETTER, figure.case, text)]
    if min(figure.runs) < RUNS_LEAST:
        return []
    test = stats.mannwhitneyu(before, after)
    if test.pvalue >= SIGNIFICANT:
        return []
    text = (
        f"{figure.stage}: {figure.base / 1000:.1f} to {figure.patched / 1000:.1f} us, p = {test.pvalue:.1e}"
    )
    return [Change(WORSE if figure.change > 0 else BETTER, figure.case, text)]


def _overall(changes: Sequence[Change], ran: bool) -> str:
    if not ran:
        return CANNOT_TELL
    verdicts = {change.verdict for change in changes}
    return next((verdict for verdict in (WORSE, CANNOT_TELL, BETTER) if verdict in verdicts), SAME)


def _environments(base: Sequence[Record], patched: Sequence[Record]) -> tuple[str, ...]:
    """What differs between the two runs' environments, a line each."""
    lines = []
    for name in ENVIRONMENT:
        values = [sorted({r.environment.get(name, "") for r in side} - {""}) for side in (base, patched)]
        if values[0] != values[1]:
            lines.append(f"{name}: {', '.join(values[0]) or '-'} and {', '.join(values[1]) or '-'}")
    return tuple(lines)
