"""Small pictures of two distributions, drawn by hand: a page has hundreds of them, matplotlib's are 20 kB each."""

from __future__ import annotations

from collections.abc import Sequence

from markupsafe import Markup

from harness.values.histogram import Histogram, bucket_of

WIDTH, ROW = 160, 15
_MARGIN = 3
HALF = 34
MIN_BARS = 12


def strips(base: Sequence[float], patched: Sequence[float], band: float = 0.0, middle: float = 0.0) -> Markup:
    """The runs of both sides as strokes on one scale, base above patched; `band` around `middle` is noise."""
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
    return _svg(2 * ROW, shade + row(base, 0) + row(patched, 1), "each run of base above, of patched below")


def mirrored(base: Histogram, patched: Histogram) -> Markup:
    """Both histograms on one logarithmic scale, base upwards, patched downwards; nothing where both are empty."""
    sides = [_buckets(histogram) for histogram in (base, patched)]
    used = sorted({bucket for side in sides for bucket in side})
    if not used:
        return Markup("")
    first, number = used[0], max(MIN_BARS, used[-1] - used[0] + 1)
    most = max(count for side in sides for count in side.values())
    step = WIDTH / number
    paths = []
    for index, (side, sign) in enumerate(zip(sides, (-1, 1), strict=True)):
        bars = ""
        for bucket, count in sorted(side.items()):
            height = sign * max(1.5, HALF * count / most)
            left = (bucket - first + (number - used[-1] + first - 1) / 2) * step
            bars += (
                f"M{left:.1f} {HALF + sign * 0.5:g}v{height:.1f}h{max(step - 0.4, 0.6):.1f}v{-height:.1f}z"
            )
        paths.append(f'<path class="fill{index}" d="{bars}"/>')
    axis = f'<path class="axis" d="M0 {HALF}h{WIDTH}"/>'
    return _svg(2 * HALF, "".join(paths) + axis, "histogram of base upwards, of patched downwards")


def _buckets(histogram: Histogram) -> dict[int, int]:
    """Counts by sixteenths of a power of two; of an older record, which has none, by the first one of each power."""
    if histogram.fine:
        return dict(histogram.fine)
    return {bucket_of(1 << power): count for power, count in enumerate(histogram.counts) if count}


def _svg(height: float, inner: str, label: str) -> Markup:
    # Numbers only: nothing of a guest's is in it.
    box = f'viewBox="0 0 {WIDTH} {height:g}"'
    return Markup(f'<svg {box} role="img" aria-label="{label}" preserveAspectRatio="none">{inner}</svg>')
