"""Run baseline and patched: once (exact), or interleaved (real time) until the requested effect size is detectable.

Interleaved, whatever else the host does meets both sides alike.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from harness.campaign.builds import BuiltModules
from harness.campaign.compare import Comparison, by_case, compare
from harness.campaign.metrics import WHOLE, samples, split
from harness.campaign.outcomes import INCONCLUSIVE, Difference, overall
from harness.campaign.question import SIDES, RegressRequest
from harness.campaign.result_cache import ModuleRun, run_cases
from harness.campaign.statistics import detectable
from harness.kernel.packages import Kernel
from harness.kernel.subsystems import Part
from harness.plan.session import Session
from harness.results.record import read_index
from harness.values.record import Record

MAX_ROUNDS = 12


@dataclass(frozen=True)
class Side:
    """A source tree and the modules that were built from it."""

    tree: Path
    built: BuiltModules


@dataclass(frozen=True)
class Sides:
    """Baseline and patched: what was built, of which parts, for which kernel."""

    kernel: Kernel
    parts: Sequence[Part]
    baseline: Side
    patched: Side


@dataclass(frozen=True)
class BothRuns:
    """The comparison, the records of each side, and in real time a note on the detectable effect size."""

    comparison: Comparison
    baseline: tuple[Record, ...] = ()
    patched: tuple[Record, ...] = ()
    notes: tuple[str, ...] = ()


def run_both(session: Session, request: RegressRequest, sides: Sides) -> BothRuns:
    """Run both sides, one round; with an effect size to detect, round by round until it is detectable."""
    if not request.effect:
        baseline, patched = _round(session, request, sides, "")
        return BothRuns(compare(baseline, patched), baseline, patched)
    return _interleave(session, request, sides)


def _interleave(session: Session, request: RegressRequest, sides: Sides) -> BothRuns:
    baseline: tuple[Record, ...] = ()
    patched: tuple[Record, ...] = ()
    for number in range(1, MAX_ROUNDS + 1):
        before, after = _round(session, replace(request, round=number), sides, f"-round-{number}")
        baseline, patched = baseline + before, patched + after
        comparison = compare(baseline, patched)
        effect = detectable_effect(baseline, patched)
        requested = f"{request.effect:.1%} was requested"
        session.say(f"round {number}: a difference of {effect:.1%} is detectable, {requested}")
        if effect <= request.effect or any(each.outcome for each in comparison.differences):
            break
        if not any(metric.stage in WHOLE for metric in comparison.metrics):
            unsure = Difference(INCONCLUSIVE, request.name, "no case has a latency to compare")
            comparison = replace(comparison, differences=(unsure,), verdict=INCONCLUSIVE)
            return BothRuns(comparison, baseline, patched)
    note = f"real time: {number} rounds of {request.seeds} runs a case; "
    note += f"a difference of {effect:.1%} is detectable"
    if effect > request.effect and not comparison.differences:
        unsure = Difference(INCONCLUSIVE, request.name, f"{note}, {requested}")
        comparison = replace(comparison, differences=(unsure,), verdict=overall([unsure]))
    return BothRuns(comparison, baseline, patched, (note,))


def _round(
    session: Session, request: RegressRequest, sides: Sides, tail: str
) -> tuple[tuple[Record, ...], tuple[Record, ...]]:
    """Run baseline, then patched."""
    built = (sides.baseline.built, sides.patched.built)
    runs = (
        ModuleRun(request, sides.kernel, each.files, sides.parts, f"{name}{tail}")
        for name, each in zip(SIDES, built, strict=True)
    )
    baseline, patched = (run_cases(session, run) for run in runs)
    return baseline, patched


def not_run(
    request: RegressRequest, baseline: Sequence[Record], patched: Sequence[Record]
) -> list[Difference]:
    """Return an inconclusive difference for runs that are on neither side, since both stopped at their failures."""
    folders = (request.results / name for name in SIDES)
    expected = max((read_index(folder).expected for folder in folders if folder.is_dir()), default=0)
    lacking = expected - len({record.case.id for record in (*baseline, *patched)})
    if lacking <= 0:
        return []
    text = f"{lacking} of {expected} runs are on neither side: each stopped at its failures"
    return [Difference(INCONCLUSIVE, request.name, text, True)]


def detectable_effect(baseline: Sequence[Record], patched: Sequence[Record]) -> float:
    """Return the largest difference that is not detectable in a whole latency of a case, as a share of it."""
    one, other = by_case(baseline), by_case(patched)
    pairs: list[tuple[list[float], list[float]]] = []
    for case in set(one) & set(other):
        sides = [
            [record for record in side if record.answer is not None] for side in (one[case], other[case])
        ]
        before, after = (samples(side, False) for side in sides)
        for name in set(before) & set(after):
            if split(name)[0] in WHOLE:
                pairs.append((list(before[name].values()), list(after[name].values())))
    return max((detectable(*pair, len(pairs)) for pair in pairs), default=float("inf"))
