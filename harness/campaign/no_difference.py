"""What a verdict of no difference rests on: said no stronger than what was looked at."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from harness.campaign.compare import LEAST, Figure
from harness.campaign.statistics import MIN_RUNS


def same(figures: Sequence[Figure], banded: bool) -> str:
    """In a sentence; `figures` are those that were compared, `banded` says whether by a judgement, which measures."""
    if not figures:
        latency = "no latency was compared"
    elif not any(figure.change for figure in figures):
        latency = "no latency moved"
    elif banded and measured(figures):
        latency = "no latency moved beyond its null band"
    else:
        latency = "no latency differs by more than chance"
    return f"No new failure, symptom or leak; {latency}."


def measured(figures: Sequence[Figure]) -> bool:
    """Whether a judgement measured a null band: where no figure in instructions moved, it needs none."""
    return any(figure.exact and figure.change for figure in figures)


def telling(figures: Sequence[Figure], most: int) -> list[Figure]:
    """So many of the figures, by case: those that so few runs can tell of, what moved most, then one of each case."""
    ranked = []
    seen: Counter[str] = Counter()
    for figure in figures:
        tells = (figure.exact and figure.stage.endswith(LEAST)) or min(figure.runs) >= MIN_RUNS
        seen[figure.case] += 1
        ranked.append(((not tells, -abs(figure.change), seen[figure.case]), figure))
    chosen = sorted(ranked, key=lambda each: each[0])[:most]
    return [figure for _, figure in sorted(chosen, key=lambda each: (each[1].case, each[0]))]
