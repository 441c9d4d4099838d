"""Word a verdict of no difference; claim only what was actually compared."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from harness.campaign.metrics import Metric
from harness.campaign.statistics import MIN_RUNS


def summary(metrics: Sequence[Metric], banded: bool) -> str:
    """Say in a sentence what was compared. `banded`: by `regress`, which measures noise bands where it needs them."""
    if not metrics:
        latency = "no latency was compared"
    elif not any(metric.change for metric in metrics):
        latency = "no latency moved"
    elif banded and needs_bands(metrics):
        latency = "no latency moved beyond its noise band"
    else:
        latency = "no latency differs by more than chance"
    return f"No new failure, console symptom or leak; {latency}."


def needs_bands(metrics: Sequence[Metric]) -> bool:
    """Return True if a metric in instructions moved: only then noise bands are needed, and measured."""
    return any(metric.exact and metric.change for metric in metrics)


def pick(metrics: Sequence[Metric], limit: int) -> list[Metric]:
    """Pick up to `limit` metrics to print: conclusive ones first, then largest changes, then one per case."""
    ranked = []
    seen: Counter[str] = Counter()
    for metric in metrics:
        conclusive = metric.by_code or min(metric.runs) >= MIN_RUNS
        seen[metric.case] += 1
        ranked.append(((not conclusive, -abs(metric.change), seen[metric.case]), metric))
    chosen = sorted(ranked, key=lambda each: each[0])[:limit]
    return [metric for _, metric in sorted(chosen, key=lambda each: (each[1].case, each[0]))]
