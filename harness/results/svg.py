"""Draw histograms and runs as inline SVG in the colours of the page: one picture serves the light and the dark theme.

`latency_picture` is for the report of a run; `strips` and `mirrored` are small ones, for pages with hundreds of them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from markupsafe import Markup, escape

from harness.results.text import duration, one_line
from harness.values.histogram import Histogram, bucket_of

SERIES = 6
"""Histograms in one picture: as many as report.css has colours, `--series-1` and on."""

# Of a latency picture, in units of its view box: the whole, the plot in it, and a line of the legend.
_WIDTH, _HEIGHT = 800, 280
_LEFT, _RIGHT, _TOP, _BOTTOM = 62, 540, 12, 232
_LEGEND_LINE = 20
_NAME_CHARACTERS = 34
# The bottom of the axis of samples, below one: a bucket of one sample has a height.
_FLOOR = 0.5
_MAX_TICKS = 8

WIDTH, ROW = 160, 15
_MARGIN = 3
HALF = 34
MIN_BARS = 12


def latency_picture(histograms: Sequence[Histogram]) -> Markup:
    """Draw up to SERIES histograms of one unit over each other, both axes logarithmic; empty without a sample."""
    shown = [histogram for histogram in histograms if histogram.samples][:SERIES]
    if not shown:
        return Markup("")
    powers = [power for histogram in shown for power, number in enumerate(histogram.counts) if number]
    first, last = max(0, min(powers) - 1), max(powers) + 2
    top = math.log10(2 * max(max(histogram.counts) for histogram in shown) / _FLOOR)

    def across(power: float) -> float:
        return _LEFT + (_RIGHT - _LEFT) * (power - first) / (last - first)

    def up(samples: float) -> float:
        return _BOTTOM - (_BOTTOM - _TOP) * math.log10(samples / _FLOOR) / top

    inner = _sample_axis(10**top * _FLOOR, up) + _time_axis(shown[0].unit, first, last, across)
    for number, histogram in enumerate(shown, 1):
        inner += _steps(histogram, number, across, up)
    label = f"histogram of {', '.join(one_line(histogram.name, _NAME_CHARACTERS) for histogram in shown)}"
    return _svg(_WIDTH, _HEIGHT, inner + _legend(shown), label, 'font-size="12.5" fill="currentColor"')


def _steps(
    histogram: Histogram, number: int, across: Callable[[float], float], up: Callable[[float], float]
) -> Markup:
    """Outline each run of buckets that have samples."""
    path = ""
    before = 0
    for power, count in enumerate((*histogram.counts, 0)):
        if count and not before:
            path += f"M{across(power):.1f} {_BOTTOM}"
        if count:
            path += f"V{up(count):.1f}H{across(power + 1):.1f}"
        elif before:
            path += f"V{_BOTTOM}"
        before = count
    colour = f"var(--series-{number})"
    return Markup('<path d="{}" fill="{}" fill-opacity=".1" stroke="{}" stroke-width="1.8"/>').format(
        path, colour, colour
    )


def _sample_axis(top: float, up: Callable[[float], float]) -> Markup:
    """Draw a line of the grid for each power of ten; for each 1, 2, 5 where there are few."""
    decades = range(math.floor(math.log10(top)) + 1)
    if len(decades) < 3:
        ticks = [digit * 10**decade for decade in decades for digit in (1, 2, 5)]
    else:
        ticks = [10**decade for decade in decades[:: -(-len(decades) // _MAX_TICKS)]]
    drawn = ""
    for tick in (tick for tick in ticks if tick <= top):
        drawn += f'<path d="M{_LEFT} {up(tick):.1f}H{_RIGHT}" stroke="var(--grid)"/>'
        drawn += f'<text x="{_LEFT - 7}" y="{up(tick) + 4:.1f}" text-anchor="end">{_short(tick)}</text>'
    middle = (_TOP + _BOTTOM) / 2
    drawn += f'<text transform="translate(14 {middle:g}) rotate(-90)" text-anchor="middle">samples in a bucket</text>'
    return Markup(drawn)


def _time_axis(unit: str, first: int, last: int, across: Callable[[float], float]) -> Markup:
    """Draw the axis of values, a tick at every power of two or, where they are many, at some."""
    drawn = f'<path d="M{_LEFT} {_TOP}V{_BOTTOM}H{_RIGHT}" fill="none" stroke="currentColor"/>'
    for power in range(first, last + 1, -(-(last - first + 1) // _MAX_TICKS)):
        text = duration(2.0**power) if unit == "ns" else _short(2**power)
        drawn += f'<path d="M{across(power):.1f} {_BOTTOM}v5" stroke="currentColor"/>'
        drawn += f'<text x="{across(power):.1f}" y="{_BOTTOM + 19}" text-anchor="middle">{text}</text>'
    label = "time, buckets by power of two" if unit == "ns" else f"{one_line(unit, 20)}, by power of two"
    place = f'x="{(_LEFT + _RIGHT) / 2:g}" y="{_BOTTOM + 40}" text-anchor="middle"'
    return Markup(drawn) + Markup(f"<text {place}>{{}}</text>").format(label)


def _legend(histograms: Sequence[Histogram]) -> Markup:
    drawn = Markup("")
    for number, histogram in enumerate(histograms, 1):
        y = _TOP + _LEGEND_LINE * (number - 1)
        drawn += Markup(
            f'<path d="M{_RIGHT + 18} {y + 6}h16" stroke="var(--series-{number})" stroke-width="3"/>'
            f'<text x="{_RIGHT + 42}" y="{y + 10}">{{}}</text>'
        ).format(one_line(histogram.name, _NAME_CHARACTERS))
    return drawn


def _short(number: float) -> str:
    """Write a number from 10,000 on as 20k, 5M, 1G."""
    for factor, letter in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if number >= max(factor, 10_000):
            return f"{number / factor:.3g}{letter}"
    return f"{number:g}"


def strips(base: Sequence[float], patched: Sequence[float], band: float = 0.0, middle: float = 0.0) -> Markup:
    """Draw each run as a stroke, baseline above patched, on one scale; `band` around `middle` is noise."""
    every = (*base, *patched)
    low, high = min(every), max(every)
    scale = (WIDTH - 2 * _MARGIN) / (high - low) if high > low else 0.0

    def at(value: float) -> float:
        return round(_MARGIN + (min(max(value, low), high) - low) * scale if scale else WIDTH / 2, 1)

    def row(values: Sequence[float], number: int) -> str:
        places = sorted({at(value) for value in values})
        strokes = "".join(f"M{place:g} {number * ROW + 2}v{ROW - 4}" for place in places)
        return f'<path class="side{number}" d="{strokes}"/>'

    shade = ""
    if band and scale:
        left, right = at(middle - band), at(middle + band)
        shade = f'<rect class="band" x="{left:g}" width="{right - left:g}" height="{2 * ROW}"/>'
    inner = Markup(shade + row(base, 0) + row(patched, 1))
    return _svg(WIDTH, 2 * ROW, inner, "runs of the baseline above, of patched below", _STRETCHED)


def mirrored(base: Histogram, patched: Histogram) -> Markup:
    """Draw two histograms on one logarithmic scale, baseline upwards, patched downwards; empty without a sample."""
    sides = [_buckets(histogram) for histogram in (base, patched)]
    used = sorted({bucket for side in sides for bucket in side})
    if not used:
        return Markup("")
    first, number = used[0], max(MIN_BARS, used[-1] - used[0] + 1)
    highest = max(count for side in sides for count in side.values())
    step = WIDTH / number
    paths = ""
    for index, (side, sign) in enumerate(zip(sides, (-1, 1), strict=True)):
        bars = ""
        for bucket, count in sorted(side.items()):
            height = sign * max(1.5, HALF * count / highest)
            left = (bucket - first + (number - used[-1] + first - 1) / 2) * step
            width = max(step - 0.4, 0.6)
            bars += f"M{left:.1f} {HALF + sign * 0.5:g}v{height:.1f}h{width:.1f}v{-height:.1f}z"
        paths += f'<path class="fill{index}" d="{bars}"/>'
    axis = f'<path class="axis" d="M0 {HALF}h{WIDTH}"/>'
    label = "histogram of the baseline upwards, of patched downwards"
    return _svg(WIDTH, 2 * HALF, Markup(paths + axis), label, _STRETCHED)


_STRETCHED = 'preserveAspectRatio="none"'


def _buckets(histogram: Histogram) -> dict[int, int]:
    """Count by sixteenths of a power of two; by the first one of each power where a record has no finer counts."""
    if histogram.fine:
        return dict(histogram.fine)
    return {bucket_of(1 << power): count for power, count in enumerate(histogram.counts) if count}


def _svg(width: int, height: int, inner: Markup, label: str, attributes: str) -> Markup:
    """Wrap shapes into an element whose size is the page's matter."""
    head = f'<svg viewBox="0 0 {width} {height}" role="img" aria-label="{escape(label)}" {attributes}>'
    return Markup(head) + inner + Markup("</svg>")
