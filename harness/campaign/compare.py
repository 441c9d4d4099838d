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

from harness.campaign.samples import CONFIDENCE, RUNS_LEAST, chance, interval, more_often, significant
from harness.values.histogram import percentile
from harness.values.record import Record

BETTER, SAME, WORSE, CANNOT_TELL = "better", "same", "worse", "cannot tell"
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
class Change:
    """One difference that a verdict rests on: WORSE, BETTER or CANNOT_TELL, about which case, and the evidence.

    `outcome` says that it is one of how a case ends; else `stage` is the figure's.
    """

    verdict: str
    case: str
    text: str
    outcome: bool = False
    stage: str = ""


@dataclass(frozen=True)
class Comparison:
    """The verdict over all cases, what it rests on, every figure, and what differs in the environments.

    `failing` are the cases that fail on both sides alike.
    """

    verdict: str
    changes: tuple[Change, ...]
    figures: tuple[Figure, ...] = ()
    environment: tuple[str, ...] = ()
    failing: tuple[str, ...] = ()


def compare(
    base: Sequence[Record], patched: Sequence[Record], bands: Mapping[str, float] | None = None
) -> Comparison:
    """Compare two runs. `bands` says by stage how many ns a change that changes nothing moves it; without them only the
    shortest ways through a stage are judged in instructions.

    Worse outranks better; without a difference it is the same; where no case ran on both sides it cannot be told.
    """
    one, other = by_case(base), by_case(patched)
    # A run ends after so many failures: of the cases behind them nothing is known without the change.
    ended = any(_ends(record) == FAILED for record in base)
    changes: list[Change] = []
    mixed: list[str] = []
    measured: list[tuple[Figure, tuple[list[float], list[float]]]] = []
    failing: list[str] = []
    for case in sorted({*one, *other}):
        before, after = one.get(case, []), other.get(case, [])
        outcomes = _outcomes(case, before, after, ended)
        changes += outcomes
        if not outcomes and min(_severity(before), _severity(after)):
            failing.append(case)
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


WELL, AS_KNOWN, FAILED = range(3)
"""How badly a run ends: well (or better than is known of it), as known, with a failure."""


def _severity(records: Sequence[Record]) -> int:
    """How badly the worst of these runs ends."""
    return max((_ends(record) for record in records), default=WELL)


def _ends(record: Record) -> int:
    if record.verdict == "fail":
        # A case that its plan knows to fail, and that does not, fails so that somebody notices.
        return WELL if record.reasons and record.reasons[0].kind == "known" else FAILED
    return AS_KNOWN if record.verdict == "known" else WELL


def _outcomes(case: str, before: Sequence[Record], after: Sequence[Record], ended: bool) -> list[Change]:
    """What differs before any figure: new failures, old ones that are gone, cases that ran on one side only; `ended`
    says that the side without the change may have stopped at its failures.
    """
    if not after or not before:
        if after and ended and _severity(after) < FAILED:
            return []
        return [Change(CANNOT_TELL, case, "ran on one side only: the other ended before it", True)]
    old, new = _severity(before), _severity(after)
    not_run = next((record for record in (*before, *after) if record.verdict == "error"), None)
    if new > old:
        failed = [record for record in after if _ends(record) == new]
        text = f"fails in {len(failed)} of {len(after)} runs: {_reasons(failed[0])}"
        return [Change(WORSE, case, text, True)]
    lacks = [[record for record in side if record.verdict == "skip"] for side in (before, after)]
    if lacks[1] and not lacks[0]:
        return [Change(WORSE, case, f"cannot run any more: {_reasons(lacks[1][0])}", True)]
    if not_run is None and old and not new:
        failed = [record for record in before if _ends(record) == old]
        return [Change(BETTER, case, f"no longer fails: {_reasons(failed[0])}", True)]
    if not_run is not None:
        return [Change(CANNOT_TELL, case, "; ".join(reason.text for reason in not_run.reasons), True)]
    return _otherwise(case, before, after) if old == FAILED else []


def _otherwise(case: str, before: Sequence[Record], after: Sequence[Record]) -> list[Change]:
    """Both sides fail: whether the changed one does for reasons of another kind, or more often."""
    failed = [[record for record in side if _ends(record) == FAILED] for side in (before, after)]
    kinds = {reason.kind for record in failed[0] for reason in record.reasons}
    for record in failed[1]:
        other = [reason for reason in record.reasons if reason.kind not in kinds]
        if other:
            text = f"fails without it, too, but not for that: {other[0]}"
            return [Change(WORSE, case, text, True)]
    counts = (len(failed[0]), len(before)), (len(failed[1]), len(after))
    if significant(more_often(*counts), 1):
        text = (
            f"fails in {counts[1][0]} of {counts[1][1]} runs, without it in {counts[0][0]} of {counts[0][1]}"
        )
        return [Change(WORSE, case, f"{text}: {_reasons(failed[1][0])}", True)]
    return []


def _reasons(record: Record) -> str:
    return "; ".join(map(str, record.reasons))


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
    if not sure and (min(figure.runs) < RUNS_LEAST or not figure.change):
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
    few = {case: runs for case, runs in few.items() if runs < RUNS_LEAST}
    if not few:
        return []
    text = f"latency in real time: {min(few.values())} runs, {RUNS_LEAST} on each side are the least (run --seeds)"
    return [Change(CANNOT_TELL, _named(list(few)), text)]


def _named(cases: Sequence[str]) -> str:
    return cases[0] if len(cases) == 1 else f"{len(cases)} cases"


def overall(changes: Sequence[Change]) -> str:
    """The verdict that these changes make."""
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
