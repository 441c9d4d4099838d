"""A comparison as one HTML file that opens without a network: each case without and with the change, side by side."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from markupsafe import Markup

from harness.campaign.compare import BANDS, ENVIRONMENT, Comparison, Figure, by_case, by_run
from harness.campaign.no_difference import same
from harness.campaign.outcomes import BETTER, CANNOT_TELL, SAME, WORSE, Change, overall
from harness.campaign.regress import Judgement
from harness.campaign.runs import SIDES
from harness.results.html import page
from harness.results.svg import mirrored, strips
from harness.results.wording import VERDICT_ORDER, common_environment, duration
from harness.values.histogram import Histogram
from harness.values.record import Record

TONES = {WORSE: "fail", BETTER: "pass", SAME: "pass", CANNOT_TELL: "known"}
NAMES = SIDES
MAX_REASONS = 6
SYMPTOM_LINES = 24
MAX_PICTURED = 200
"""Cases with pictures: beyond, those whose verdict rests on nothing have their figures only."""


@dataclass(frozen=True)
class Side:
    """What all runs of a case did on one side; `histograms` are of all of them together."""

    records: Sequence[Record]
    tally: Mapping[str, int]
    reasons: Sequence[tuple[str, int]]
    expectations: tuple[int, int]
    data: tuple[int, int]
    faults: str
    symptoms: Sequence[tuple[str, str]]
    histograms: Mapping[str, Histogram]


def render(
    found: Comparison,
    base: Sequence[Record],
    patched: Sequence[Record],
    judgement: Judgement | None = None,
    names: tuple[str, str] = NAMES,
) -> str:
    """The whole page. `names` say what the two sides are; with a judgement it tells of its patch, too."""
    sides = (by_case(base), by_case(patched))
    cases = [
        _case(case, found, sides[0].get(case, []), sides[1].get(case, []), number < MAX_PICTURED)
        for number, case in enumerate(_order(found, sides))
    ]
    return page(
        Path(__file__).with_name("verdict.html"),
        found=found,
        same=same(found.figures, banded=judgement is not None),
        judgement=judgement,
        names=names,
        tones=TONES,
        cases=cases,
        compared=len({figure.case for figure in found.figures}),
        exact=any(figure.exact for figure in found.figures),
        environment=_environment(base, patched),
        own_style=Markup(Path(__file__).with_name("verdict.css").read_text("utf-8")),
        bands=BANDS,
        reasons_most=MAX_REASONS,
    )


def _order(found: Comparison, sides: Sequence[Mapping[str, Sequence[Record]]]) -> list[str]:
    """What got worse first, then whatever else the verdict rests on, then what fails anyway."""
    ranks = {WORSE: 0, CANNOT_TELL: 1, BETTER: 2}
    rank = dict.fromkeys(found.never_well, 3)
    for change in found.changes:
        rank[change.case] = min(rank.get(change.case, 9), ranks[change.verdict])
    return sorted({*sides[0], *sides[1]}, key=lambda case: (rank.get(case, 9), case))


def _case(
    case: str, found: Comparison, base: Sequence[Record], patched: Sequence[Record], pictured: bool
) -> dict[str, Any]:
    changes = [change for change in found.changes if change.case == case]
    figures = [figure for figure in found.figures if figure.case == case]
    sides = (_side(base), _side(patched))
    pictured = pictured or bool(changes)
    return {
        "id": case,
        "verdict": overall(changes),
        "failing": case in found.never_well,
        "changes": changes,
        "sides": sides,
        "figures": _figures(figures, changes, base, patched, pictured),
        "moved": sum(1 for figure in figures if figure.change),
        "stages": _stages(*sides) if pictured else [],
    }


def _figures(
    figures: Sequence[Figure],
    changes: Sequence[Change],
    base: Sequence[Record],
    patched: Sequence[Record],
    pictured: bool,
) -> list[dict[str, Any]]:
    """Those that the verdict rests on, then those that moved most."""
    told = {change.stage: change.verdict for change in changes}
    ordered = sorted(figures, key=lambda figure: (figure.stage not in told, -abs(figure.change)))
    values = {exact: (by_run(base, exact), by_run(patched, exact)) for exact in {f.exact for f in figures}}
    rows = []
    for figure in ordered:
        mine, theirs = (list(side[figure.stage].values()) for side in values[figure.exact])
        moved = {*mine, *theirs} != {figure.base}
        rows.append(
            {
                "figure": figure,
                "verdict": told.get(figure.stage, ""),
                "shown": moved,
                "picture": strips(mine, theirs, BANDS * figure.band, figure.base)
                if moved and pictured
                else "",
            }
        )
    return rows


def _stages(base: Side, patched: Side) -> list[dict[str, Any]]:
    """The stages that both or one of the sides saw: both histograms on one scale."""
    found = []
    for name in dict.fromkeys((*base.histograms, *patched.histograms)):
        some = base.histograms.get(name) or patched.histograms[name]
        pair = [side.histograms.get(name, Histogram(name, some.unit)) for side in (base, patched)]
        seen = [histogram for histogram in pair if histogram.samples]
        found.append(
            {
                "name": name,
                "low": _said(some, min(histogram.minimum for histogram in seen)),
                "high": _said(some, max(histogram.maximum for histogram in seen)),
                "medians": [_said(some, h.quantile(0.5)) if h.samples else "–" for h in pair],
                "calls": [histogram.samples for histogram in pair],
                "picture": mirrored(*pair),
            }
        )
    return found


def _said(histogram: Histogram, value: int) -> str:
    return duration(value) if histogram.unit == "ns" else f"{value} {histogram.unit}"


def _side(records: Sequence[Record]) -> Side:
    verdicts = Counter(record.verdict for record in records)
    reasons = Counter(str(reason) for record in records for reason in record.reasons)
    answers = [record.answer for record in records if record.answer is not None]
    faults = sorted({len(answer.trace.faults) + answer.trace.lost for answer in answers})
    symptoms = {
        symptom.fingerprint: (symptom.headline, "\n".join(symptom.excerpt[:SYMPTOM_LINES]))
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
        (len(answers), sum(not law.holds for answer in answers for law in answer.expectations)),
        (sum(answer.data.bytes_checked for answer in answers), sum(answer.data.wrong for answer in answers)),
        " to ".join(str(number) for number in dict.fromkeys((*faults[:1], *faults[-1:]))),
        list(symptoms.values()),
        histograms,
    )


def _environment(base: Sequence[Record], patched: Sequence[Record]) -> list[tuple[str, str, str, bool]]:
    """What holds of each side: name, both values, whether they differ in what should be the same."""
    mine, theirs = common_environment(base), common_environment(patched)
    names = [name for name in dict.fromkeys((*mine, *theirs)) if not name.startswith("machine.probe ")]
    return [
        (name, mine.get(name, ""), theirs.get(name, ""), mine.get(name) != theirs.get(name))
        for name in sorted(names, key=lambda name: (name not in ENVIRONMENT, name.startswith("machine.")))
    ]
