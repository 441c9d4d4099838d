"""Two runs of the same cases: what got worse, what got better, and what cannot be told.

Results are compared by case; `seed=N` at the end of a case's name is one of several runs of the same case.
Latency in exact time is compared over the seeds, in instructions; in real time by a rank test over the runs. With a
card a machine's instructions are counted, but it waits in real time: only the shortest way through a stage is told.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import median

from harness.campaign.outcomes import (
    BETTER,
    CANNOT_TELL,
    FAILED,
    WELL,
    WORSE,
    Change,
    differing_ends,
    how_ended,
    overall,
    severity,
)
from harness.campaign.statistics import (
    CONFIDENCE,
    MIN_RUNS,
    chance,
    interval,
    significant,
)
from harness.values.histogram import percentile
from harness.values.record import Record

PACED = "paced"
LEAST = " least"
JUDGED = ("operation", "fault")
"""Figures of which a difference in real time must show, if there is one."""

BANDS = 3
"""How many times what changes that change nothing did is still nothing: they were few."""
PROBES = 5.0
"""Instructions by which the shortest way through one stage or another moves where the other builds of a band show none,
probably by where a probe lies in the kernel's hash of probes. No band of a shortest way is narrower.
"""

SEED = re.compile(r"/seed=\d+$")
RAN = ("pass", "known", "fail")
# What two runs must have in common for their figures to mean anything.
ENVIRONMENT = ("kernel", "qemu", "image", "clock", "accelerator", "device")


@dataclass(frozen=True)
class Figure:
    """One latency of one case: medians over the runs, in ns (`exact`: instructions), and the band that is noise.

    `stage` is `operation` or `fault`, or a stage with what of it: `checks mean`, `checks least`.
    """

    case: str
    stage: str
    exact: bool
    base: float
    patched: float
    runs: tuple[int, int]
    band: float
    change: float
    """Patched minus base; in exact time the median over the pairs of runs with the same seed."""


@dataclass(frozen=True)
class Comparison:
    """The verdict over all cases, what it rests on, every figure, and what differs in the environments.

    `failing` are the cases that fail on both sides alike, `known` those that fail on both as is known of the kernel.
    """

    verdict: str
    changes: tuple[Change, ...]
    figures: tuple[Figure, ...] = ()
    environment: tuple[str, ...] = ()
    failing: tuple[str, ...] = ()
    known: tuple[str, ...] = ()

    @property
    def never_well(self) -> tuple[str, ...]:
        """Cases that fail on both sides, whether that is known or not."""
        return (*self.failing, *self.known)


def compare(
    base: Sequence[Record], patched: Sequence[Record], bands: Mapping[str, float] | None = None
) -> Comparison:
    """Compare two runs. `bands` says by stage how many ns a change that changes nothing moves it; without them only the
    shortest ways through a stage are judged in instructions.

    Worse outranks better; without a difference it is the same; where no case ran on both sides it cannot be told.
    """
    one, other = by_case(base), by_case(patched)
    # A run ends after so many failures: of the cases behind them nothing is known without the change.
    ended = any(how_ended(record) == FAILED for record in base)
    changes: list[Change] = []
    mixed: list[str] = []
    measured: list[tuple[Figure, tuple[list[float], list[float]]]] = []
    failing: list[str] = []
    known: list[str] = []
    for case in sorted({*one, *other}):
        before, after = one.get(case, []), other.get(case, [])
        outcomes = differing_ends(case, before, after, ended)
        changes += outcomes
        alike = WELL if outcomes else min(severity(before), severity(after))
        if alike:
            (failing if alike == FAILED else known).append(case)
        if before and after and _mixed(before, after):
            mixed.append(case)
        elif not outcomes and before and all(_sound(record) for record in (*before, *after)):
            measured += _figures(case, before, after, bands)
    figures = [figure for figure, _ in measured]
    changes += _apart(mixed)
    for figure, samples in measured:
        changes += _latency(figure, *samples, _tests(figure, figures), bands is not None)
    changes += _too_few(figures)
    ran = set(one) & set(other) and any(record.verdict in RAN for record in (*base, *patched))
    return Comparison(
        overall(changes) if ran else CANNOT_TELL,
        tuple(changes),
        tuple(figures),
        _environments(base, patched),
        tuple(failing),
        tuple(known),
    )


def with_more(found: Comparison, changes: Sequence[Change]) -> Comparison:
    """The same, with changes that no record says."""
    verdict = overall([*found.changes, *changes]) if changes else found.verdict
    return replace(found, changes=(*found.changes, *changes), verdict=verdict)


def by_case(records: Iterable[Record]) -> dict[str, list[Record]]:
    """The runs of each case, whatever their seeds."""
    found: dict[str, list[Record]] = defaultdict(list)
    for record in records:
        found[SEED.sub("", record.case.id)].append(record)
    return found


def _sound(record: Record) -> bool:
    return record.verdict in ("pass", "known") and record.answer is not None


def _figures(
    case: str, before: Sequence[Record], after: Sequence[Record], bands: Mapping[str, float] | None
) -> Iterable[tuple[Figure, tuple[list[float], list[float]]]]:
    clocks = {record.environment.get("clock") for record in (*before, *after)}
    exact = clocks <= {"exact", PACED}
    mine, theirs = by_run(before, exact), by_run(after, exact)
    for stage in sorted(set(mine) & set(theirs)):
        pair = (mine[stage], theirs[stage])
        samples = (list(pair[0].values()), list(pair[1].values()))
        if PACED in clocks and not stage.endswith(LEAST):
            continue
        counts = (len(samples[0]), len(samples[1]))
        base, patched = (float(median(values)) for values in samples)
        change = _paired(*pair) if exact else patched - base
        band = (bands or {}).get(stage, PROBES if exact and stage.endswith(LEAST) else 0.0)
        yield Figure(case, stage, exact, base, patched, counts, float(band), change), samples


def _paired(before: Mapping[str, float], after: Mapping[str, float]) -> float:
    """The median difference of runs of one seed; where no seed is on both sides, of the medians."""
    both = [after[run] - value for run, value in before.items() if run in after]
    return float(median(both)) if both else float(median(after.values()) - median(before.values()))


def by_run(records: Sequence[Record], exact: bool) -> dict[str, dict[str, float]]:
    """Per figure the value of each run: medians of whole operations and whole faults; of each stage its mean.

    In exact time also the least of each stage: the shortest way through it, which nothing but its code moves. A run
    whose probes missed calls says nothing of stages.
    """
    found: dict[str, dict[str, float]] = defaultdict(dict)
    for number, record in enumerate(records):
        assert record.answer is not None
        run = record.case.id if exact and SEED.search(record.case.id) else f"run {number}"
        trace = record.answer.trace
        values: dict[str, list[int]] = {"operation": list(record.answer.operations_ns)}
        values["fault"] = [fault.duration_ns for fault in trace.faults]
        for stage, durations in values.items():
            if durations:
                found[stage][run] = float(percentile(tuple(durations), 0.5))
        for histogram in trace.histograms if not trace.missed else ():
            if histogram.samples:
                found[f"{histogram.name} mean"][run] = histogram.mean
                if exact:
                    found[histogram.name + LEAST][run] = float(histogram.minimum)
    return found


def _latency(
    figure: Figure, before: list[float], after: list[float], tests: int, banded: bool
) -> list[Change]:
    """What a figure says, if anything. In real time, where nothing but the runs is known, it is one of `tests`; in
    instructions it depends on whether its band is known.

    The shortest way through a stage is a property of the code. Everything else also depends on what else the machine
    does meanwhile, which any change shifts: there the runs of both sides must be told apart by a rank test, too.
    """
    verdict = WORSE if figure.change > 0 else BETTER
    sure = figure.exact and figure.stage.endswith(LEAST)
    if figure.exact and abs(figure.change) <= BANDS * figure.band:
        return []
    if not sure and (min(figure.runs) < MIN_RUNS or not figure.change):
        return []
    probable = 0.0 if sure else chance(before, after)
    if not significant(probable, 1 if figure.exact else tests):
        return []
    if not figure.exact:
        low, high = (bound / 1000 for bound in interval(before, after))
        numbers = f"{figure.base / 1000:.1f} to {figure.patched / 1000:.1f} us, p = {probable:.1e}"
        numbers += f", {CONFIDENCE:.0%} of resamples {low:+.1f} to {high:+.1f}"
        return [Change(verdict, figure.case, f"{figure.stage}: {numbers}", stage=figure.stage)]
    moved = f"{figure.change:+.0f} instructions ({figure.base:.0f} to {figure.patched:.0f})"
    nothing = f"changes that change nothing move it by up to {figure.band:.0f}"
    if not banded:
        nothing = "how far changes that change nothing move it was not measured (`regress` does)"
        verdict = verdict if sure else CANNOT_TELL
    return [Change(verdict, figure.case, f"{figure.stage}: {moved}; {nothing}", stage=figure.stage)]


def _tests(figure: Figure, figures: Sequence[Figure]) -> int:
    """Of how many tests in real time that of this figure is one: those that are JUDGED are a family of their own."""
    judged = figure.stage in JUDGED
    return sum(not each.exact and (not judged or each.stage in JUDGED) for each in figures)


def _mixed(before: Sequence[Record], after: Sequence[Record]) -> bool:
    """Whether one side counted instructions, and the other did not. What never came to a case has no clock."""
    clocks = {record.environment.get("clock") for record in (*before, *after)} - {None}
    return len({clock in ("exact", PACED) for clock in clocks}) > 1


def _apart(cases: Sequence[str]) -> list[Change]:
    """A word on cases that are mixed."""
    text = "latency: in instructions on one side, in real time on the other"
    return [Change(CANNOT_TELL, _named(cases), text)] if cases else []


def _too_few(figures: Sequence[Figure]) -> list[Change]:
    """Cases whose figures are in real time, of which a few runs say nothing."""
    few = {figure.case: min(figure.runs) for figure in figures if not figure.exact}
    few = {case: runs for case, runs in few.items() if runs < MIN_RUNS}
    if not few:
        return []
    text = (
        f"latency in real time: {min(few.values())} runs, {MIN_RUNS} on each side are the least (run --seeds)"
    )
    return [Change(CANNOT_TELL, _named(list(few)), text)]


def _named(cases: Sequence[str]) -> str:
    return cases[0] if len(cases) == 1 else f"{len(cases)} cases"


def _environments(base: Sequence[Record], patched: Sequence[Record]) -> tuple[str, ...]:
    """What differs between the two runs' environments, a line each."""
    lines = []
    for name in ENVIRONMENT:
        values = [sorted({r.environment.get(name, "") for r in side} - {""}) for side in (base, patched)]
        if values[0] != values[1]:
            lines.append(f"{name}: {', '.join(values[0]) or '-'} and {', '.join(values[1]) or '-'}")
    return tuple(lines)
