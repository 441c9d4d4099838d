"""Stages of a fault as rows of statistics, for tables, pictures and exports."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from harness.results.text import duration
from harness.values.answer import Trace
from harness.values.histogram import Histogram, of_values

_BARS = "▁▂▃▄▅▆▇█"
SPARKLINE = 16


@dataclass(frozen=True)
class Row:
    """One stage, times in `unit`. `share` is its part of the time of all faults, None for a stage outside of them."""

    stage: str
    samples: int
    p50_ns: int
    p90_ns: int
    p99_ns: int
    maximum_ns: int
    total_ns: int
    share: float | None
    sparkline: str
    unit: str = "ns"


def rows(trace: Trace) -> tuple[Row, ...]:
    """Make a row for each stage that has samples, in the order of the driver's table."""
    whole = next((h.total for h in trace.histograms if h.name == trace.whole), 0)
    spent: dict[str, int] = {}
    for fault in trace.faults:
        for stage, ns in fault.inner_ns.items():
            if fault.inner_at_ns.get(stage, 0) >= 0:
                spent[stage] = spent.get(stage, 0) + ns
    if trace.lost:
        whole = sum(fault.duration_ns for fault in trace.faults)
    seen = [histogram for histogram in trace.histograms if histogram.samples]
    return tuple(_row(histogram, _share(histogram, spent, whole, trace.whole)) for histogram in seen)


def of_faults(trace: Trace, pid: int = 0, min_ns: int = 0) -> Trace:
    """Select the faults of one process, or that took `min_ns`; histograms are made from their records."""
    if not pid and not min_ns:
        return trace
    faults = tuple(f for f in trace.faults if (not pid or f.pid == pid) and f.duration_ns >= min_ns)
    times: dict[str, list[int]] = {trace.whole: [fault.duration_ns for fault in faults]}
    for fault in faults:
        for stage, ns in fault.inner_ns.items():
            times.setdefault(stage, []).append(ns)
    histograms = tuple(
        of_values(h.name, h.unit, tuple(times[h.name])) for h in trace.histograms if times.get(h.name)
    )
    return Trace({trace.whole: len(faults)}, histograms, faults, trace.lost, trace.missed, trace.whole)


def longest_stages(trace: Trace, limit: int) -> tuple[Histogram, ...]:
    """Select up to `limit` stages: the whole fault, then those that took most time in all."""
    seen = [histogram for histogram in trace.histograms if histogram.samples]
    chosen = sorted(seen, key=lambda h: (h.name != trace.whole, -h.total))[:limit]
    return tuple(histogram for histogram in seen if histogram in chosen)


def seen_together(before: Trace, news: Trace) -> Trace:
    """Join a live trace with its next part, whose counts and histograms are cumulative and whose records are new."""
    return replace(news, faults=before.faults + news.faults)


def sparkline(histogram: Histogram, width: int = SPARKLINE) -> str:
    """Draw a histogram by powers of two in characters, from its first to its last bucket, scaled to the highest."""
    first = next((power for power, number in enumerate(histogram.counts) if number), 0)
    shape = histogram.counts[first:]
    if not shape:
        return ""
    step = -(-len(shape) // width)
    bars = [sum(shape[at : at + step]) for at in range(0, len(shape), step)]
    return "".join(_BARS[-(-number * (len(_BARS) - 1) // max(bars))] if number else " " for number in bars)


def cost(trace: Trace) -> str:
    """Write the run time of the probes' programs; empty if it was not measured."""
    if not trace.hits or not trace.watched_ns:
        return ""
    part = 100 * trace.cost_ns / trace.watched_ns
    took = f"{duration(trace.cost_ns)} of the {duration(trace.watched_ns)} watched"
    return f"the probes' programs ran {trace.hits} times and took {took}, {part:.1f} %"


def _row(histogram: Histogram, share: float | None) -> Row:
    return Row(
        histogram.name,
        histogram.samples,
        histogram.quantile(0.5),
        histogram.quantile(0.9),
        histogram.quantile(0.99),
        histogram.maximum,
        histogram.total,
        share,
        sparkline(histogram),
        histogram.unit,
    )


def _share(histogram: Histogram, spent: dict[str, int], whole: int, name: str) -> float | None:
    if histogram.name == name:
        return 1.0
    if not whole or histogram.name not in spent:
        return None
    return spent[histogram.name] / whole


def stages_of(traces: Sequence[Trace]) -> tuple[str, ...]:
    """List all stages in the faults of these traces, the whole first."""
    names: dict[str, None] = {}
    for trace in traces:
        if trace.faults:
            names.setdefault(trace.whole, None)
        for fault in trace.faults:
            names.update(dict.fromkeys(sorted(fault.inner_ns, key=lambda s: fault.inner_at_ns.get(s, 0))))
    return tuple(names)
