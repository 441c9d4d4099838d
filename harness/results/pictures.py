"""Histograms as pictures: inline SVG in the colours of the page it stands in."""

from __future__ import annotations

import io
import re
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import matplotlib
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from harness.results.wording import duration, one_line
from harness.values.histogram import Histogram

SERIES = 6

# Colours that matplotlib writes and the page replaces: one picture serves the light and the dark theme.
_INK, _GRID = "#0a0b01", "#0a0b02"
_PAINT = [f"#0a0c{number:02x}" for number in range(SERIES)]
_IN_PAGE = {_INK: "currentColor", _GRID: "var(--grid)"}
_IN_PAGE.update({paint: f"var(--series-{number})" for number, paint in enumerate(_PAINT, 1)})

_SETTINGS: Any = {
    "svg.fonttype": "none",
    "svg.hashsalt": "odp-harness",
    "text.parse_math": False,
    "font.size": 9.5,
    "text.color": _INK,
    "axes.labelcolor": _INK,
    "axes.edgecolor": _INK,
    "xtick.color": _INK,
    "ytick.color": _INK,
    "legend.frameon": False,
}


def latency_picture(histograms: Sequence[Histogram], number: int = 0) -> str:
    """One SVG of up to SERIES histograms of one unit; empty when they hold no sample.

    `number` keeps its ids apart from those of other pictures on the page.
    """
    shown = tuple(histogram for histogram in histograms if histogram.samples)[:SERIES]
    if not shown:
        return ""
    return _with_own_ids(_draw(shown), number)


@lru_cache(maxsize=256)
def _draw(histograms: tuple[Histogram, ...]) -> str:
    with matplotlib.rc_context(_SETTINGS):
        figure = Figure(figsize=(7.6, 2.9), layout=None)
        FigureCanvasSVG(figure)
        axes = figure.add_axes((0.085, 0.19, 0.60, 0.76))
        handles = [_series(axes, histogram, index) for index, histogram in enumerate(histograms)]
        _dress(axes, histograms)
        axes.legend(
            handles,
            [one_line(histogram.name, 34) for histogram in histograms],
            loc="upper left",
            bbox_to_anchor=(1.01, 1.03),
            borderaxespad=0,
            handlelength=1.2,
        )
        drawn = io.StringIO()
        figure.savefig(drawn, format="svg", transparent=True, metadata={"Date": None})
    return _in_page_colours(drawn.getvalue())


def _series(axes: matplotlib.axes.Axes, histogram: Histogram, index: int) -> matplotlib.patches.StepPatch:
    edges = [2.0**power for power in range(len(histogram.counts) + 1)]
    floor = 0.5  # below one sample: an empty bucket is drawn down to the axis
    values = [max(number, floor) for number in histogram.counts]
    axes.stairs(values, edges, baseline=floor, fill=True, color=_PAINT[index], alpha=0.08, linewidth=0)
    return axes.stairs(values, edges, baseline=floor, color=_PAINT[index], linewidth=1.6)


def _dress(axes: matplotlib.axes.Axes, histograms: Sequence[Histogram]) -> None:
    powers = [power for histogram in histograms for power, number in enumerate(histogram.counts) if number]
    axes.set_xscale("log", base=2)
    axes.set_xlim(2.0 ** max(0, min(powers) - 1), 2.0 ** (max(powers) + 2))
    axes.set_yscale("log")
    axes.set_ylim(0.5, 2 * max(max(histogram.counts) for histogram in histograms))
    unit = histograms[0].unit
    axes.set_xlabel(
        "time, buckets by power of two" if unit == "ns" else f"{one_line(unit, 20)}, by power of two"
    )
    axes.set_ylabel("samples in a bucket")
    span = max(powers) - min(powers) + 3
    axes.xaxis.set_major_locator(LogLocator(base=2.0 ** max(1, -(-span // 8))))
    axes.xaxis.set_major_formatter(
        FuncFormatter(lambda value, _: duration(value) if unit == "ns" else f"{value:.0f}")
    )
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.minorticks_off()
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.0f}" if value >= 1 else ""))
    axes.grid(axis="y", color=_GRID, linewidth=0.8)
    axes.set_axisbelow(True)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)


def _in_page_colours(svg: str) -> str:
    """Only the element itself, its size left to the page, its colours those of the theme."""
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(r'(<svg [^>]*?)\swidth="[^"]*"', r"\1", svg, count=1)
    svg = re.sub(r'(<svg [^>]*?)\sheight="[^"]*"', r"\1", svg, count=1)
    return re.sub(r"#0a0[bc][\da-f]{2}\b", lambda match: _IN_PAGE.get(match[0], "currentColor"), svg)


def _with_own_ids(svg: str, number: int) -> str:
    svg = re.sub(r'\bid="', f'id="p{number}-', svg)
    svg = re.sub(r"url\(#", f"url(#p{number}-", svg)
    return re.sub(r'href="#', f'href="#p{number}-', svg)
