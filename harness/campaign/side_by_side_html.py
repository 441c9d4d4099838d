"""Render a comparison as one HTML file that opens without a network: both sides of each case, side by side."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from markupsafe import Markup

from harness.campaign.compare import ENVIRONMENT, Comparison, by_case
from harness.campaign.metrics import NOISE_FACTOR, STAGES, Metric, samples
from harness.campaign.no_difference import summary
from harness.campaign.outcomes import (
    IMPROVEMENT,
    INCONCLUSIVE,
    NO_DIFFERENCE,
    REGRESSION,
    Difference,
    overall,
)
from harness.campaign.question import SIDES
from harness.campaign.regress import RegressResult
from harness.results.html import page
from harness.results.svg import mirrored, strips
from harness.results.text import VERDICT_ORDER, common_environment, duration
from harness.values.histogram import Histogram
from harness.values.record import Record

TONES = {REGRESSION: "fail", IMPROVEMENT: "pass", NO_DIFFERENCE: "pass", INCONCLUSIVE: "known"}
NAMES = SIDES
MAX_REASONS = 6
MAX_SYMPTOM_LINES = 24
MAX_PICTURED = 200
"""Cases with pictures: beyond, cases without a difference have their numbers only."""


@dataclass(frozen=True)
class Side:
    """All runs of a case on one side; `histograms` are merged over them, pairs are a total and those that are wrong."""

    records: Sequence[Record]
    tally: Mapping[str, int]
    reasons: Sequence[tuple[str, int]]
    expectations: tuple[int, int]
    data: tuple[int, int]
    faults: str
    symptoms: Sequence[tuple[str, str]]
    histograms: Mapping[str, Histogram]


def render(
    comparison: Comparison,
    baseline: Sequence[Record],
    patched: Sequence[Record],
    result: RegressResult | None = None,
    names: tuple[str, str] = NAMES,
) -> str:
    """Render the whole page. `names` are those of the sides; a `result` of `regress` adds its patch."""
    sides = (by_case(baseline), by_case(patched))
    cases = [
        _case(case, comparison, sides[0].get(case, []), sides[1].get(case, []), number < MAX_PICTURED)
        for number, case in enumerate(_order(comparison, sides))
    ]
    return page(
        Path(__file__).with_name("verdict.html"),
        comparison=comparison,
        no_difference=NO_DIFFERENCE,
        summary=summary(comparison.metrics, banded=result is not None),
        result=result,
        names=names,
        tones=TONES,
        cases=cases,
        compared=len({metric.case for metric in comparison.metrics}),
        exact=any(metric.exact for metric in comparison.metrics),
        environment=_environment(baseline, patched),
        own_style=Markup(Path(__file__).with_name("verdict.css").read_text("utf-8")),
        noise_factor=NOISE_FACTOR,
        max_reasons=MAX_REASONS,
    )


def _order(comparison: Comparison, sides: Sequence[Mapping[str, Sequence[Record]]]) -> list[str]:
    """Order cases: regressions first, then other differences, then cases that fail on both sides."""
    ranks = {REGRESSION: 0, INCONCLUSIVE: 1, IMPROVEMENT: 2}
    rank = dict.fromkeys(comparison.failing_on_both, 3)
    for each in comparison.differences:
        rank[each.case] = min(rank.get(each.case, 9), ranks[each.verdict])
    return sorted({*sides[0], *sides[1]}, key=lambda case: (rank.get(case, 9), case))


def _case(
    case: str,
    comparison: Comparison,
    baseline: Sequence[Record],
    patched: Sequence[Record],
    pictured: bool,
) -> dict[str, Any]:
    differences = [each for each in comparison.differences if each.case == case]
    metrics = [metric for metric in comparison.metrics if metric.case == case]
    sides = (_side(baseline), _side(patched))
    pictured = pictured or bool(differences)
    return {
        "id": case,
        "verdict": overall(differences),
        "failing": case in comparison.failing_on_both,
        "differences": differences,
        "sides": sides,
        "metrics": _metrics(metrics, differences, (baseline, patched), pictured),
        "moved": sum(1 for metric in metrics if metric.change),
        "stages": _stages(*sides) if pictured else [],
    }


def _metrics(
    metrics: Sequence[Metric],
    differences: Sequence[Difference],
    sides: Sequence[Sequence[Record]],
    pictured: bool,
) -> list[dict[str, Any]]:
    """Return a row for each metric: those that the verdict rests on, then those that moved most."""
    verdicts = {each.metric: each.verdict for each in differences}
    ordered = sorted(metrics, key=lambda metric: (metric.name not in verdicts, -abs(metric.change)))
    exacts = {metric.exact for metric in metrics}
    values = {exact: [samples(side, exact) for side in sides] for exact in exacts}
    rows = []
    for metric in ordered:
        before, after = (list(side[metric.name].values()) for side in values[metric.exact])
        moved = {*before, *after} != {metric.baseline}
        picture = ""
        if moved and pictured:
            picture = strips(before, after, metric.threshold, metric.baseline)
        verdict = verdicts.get(metric.name, "")
        rows.append({"metric": metric, "verdict": verdict, "shown": moved, "picture": picture})
    return rows


def _stages(baseline: Side, patched: Side) -> list[dict[str, Any]]:
    """Return a row for each stage that a side has: both histograms on one scale."""
    rows = []
    for name in dict.fromkeys((*baseline.histograms, *patched.histograms)):
        some = baseline.histograms.get(name) or patched.histograms[name]
        pair = [side.histograms.get(name, Histogram(name, some.unit)) for side in (baseline, patched)]
        seen = [histogram for histogram in pair if histogram.samples]
        rows.append(
            {
                "name": name,
                "text": STAGES.get(name, ""),
                "low": _formatted(some, min(histogram.minimum for histogram in seen)),
                "high": _formatted(some, max(histogram.maximum for histogram in seen)),
                "medians": [_formatted(some, h.quantile(0.5)) if h.samples else "–" for h in pair],
                "calls": [histogram.samples for histogram in pair],
                "picture": mirrored(*pair),
            }
        )
    return rows


def _formatted(histogram: Histogram, value: int) -> str:
    return duration(value) if histogram.unit == "ns" else f"{value} {histogram.unit}"


def _side(records: Sequence[Record]) -> Side:
    verdicts = Counter(record.verdict for record in records)
    reasons = Counter(str(reason) for record in records for reason in record.reasons)
    answers = [record.answer for record in records if record.answer is not None]
    faults = sorted({len(answer.trace.faults) + answer.trace.lost for answer in answers})
    symptoms = {
        symptom.fingerprint: (symptom.headline, "\n".join(symptom.excerpt[:MAX_SYMPTOM_LINES]))
        for record in records
        for symptom in record.symptoms
    }
    histograms: dict[str, Histogram] = {}
    for histogram in (h for answer in answers for h in answer.trace.histograms if h.samples):
        known = histograms.get(histogram.name)
        histograms[histogram.name] = known.merged(histogram) if known else histogram
    return Side(
        records,
        {verdict: verdicts[verdict] for verdict in VERDICT_ORDER if verdicts[verdict]},
        reasons.most_common(),
        (len(answers), sum(not each.holds for answer in answers for each in answer.expectations)),
        (sum(answer.data.bytes_checked for answer in answers), sum(answer.data.wrong for answer in answers)),
        " to ".join(str(number) for number in dict.fromkeys((*faults[:1], *faults[-1:]))),
        list(symptoms.values()),
        histograms,
    )


def _environment(baseline: Sequence[Record], patched: Sequence[Record]) -> list[tuple[str, str, str, bool]]:
    """Return the environment of both sides: name, both values, and True where they differ."""
    one, other = common_environment(baseline), common_environment(patched)
    names = [name for name in dict.fromkeys((*one, *other)) if not name.startswith("machine.probe ")]
    return [
        (name, one.get(name, ""), other.get(name, ""), one.get(name) != other.get(name))
        for name in sorted(names, key=lambda name: (name not in ENVIRONMENT, name.startswith("machine.")))
    ]
