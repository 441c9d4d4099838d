"""Pictures as shapes: where bars stand, how high they are, which text is in them."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ElementTree
from dataclasses import replace

import pytest

from harness.results import svg
from harness.results.svg import SERIES, latency_picture
from harness.results.text import one_line
from harness.tests.unit.results.sample import HOSTILE, histogram
from harness.values.histogram import Histogram


def bars(picture):
    """Read the outlines of a picture: points of each series, by its colour."""
    drawn = re.findall(r'<path d="([^"]*)" fill="var\(--series-(\d)\)"', picture)
    return {
        int(number): [
            (command, *map(float, rest.split())) for command, rest in re.findall(r"([MVH])([\d. ]+)", path)
        ]
        for path, number in drawn
    }


def texts(picture):
    return re.findall(r"<text[^>]*>([^<]*)</text>", picture)


def test_pictures_have_axes_units_and_a_legend():
    """Mutation: leave out the legend or the axis labels."""
    picture = latency_picture([histogram("fault: total", 40_000, 200), histogram("dma map", 4_000, 200)])
    assert {"fault: total", "dma map", "samples in a bucket"} <= set(texts(picture))
    assert any("power of two" in text for text in texts(picture))
    assert any("µs" in text for text in texts(picture))
    assert latency_picture([histogram("bytes", 4_000, 9), Histogram("empty", "ns")]) != ""
    assert "pages, by power of two" in texts(latency_picture([Histogram("x", "pages", (1, 1), 3, 1, 2)]))


def test_a_bucket_is_as_wide_as_a_power_and_as_high_as_its_logarithm():
    """Mutations: linear heights; a bucket drawn one power too far right."""
    (points,) = bars(latency_picture([Histogram("x", "ns", (0, 0, 1, 10, 100), 1, 4, 31)])).values()
    assert [command for command, *_ in points] == ["M", "V", "H", "V", "H", "V", "H", "V"]
    heights = [points[0][2] - place for command, place, *_ in points if command == "V"]
    assert heights[1] - heights[0] == pytest.approx(heights[2] - heights[1], abs=0.2)
    edges = [points[0][1], *(place for command, place in points[1:] if command == "H")]
    widths = {round(right - left) for left, right in zip(edges, edges[1:], strict=False)}
    assert len(widths) == 1 and heights[3] == 0
    # The axis begins one power below the first bucket.
    assert points[0][1] - svg._LEFT == pytest.approx(edges[1] - edges[0], abs=0.2)


def test_an_empty_bucket_parts_the_outline():
    """Mutation: draw one outline over the gap."""
    (points,) = bars(latency_picture([Histogram("x", "ns", (3, 0, 3), 1, 0, 5)])).values()
    assert [command for command, *_ in points] == ["M", "V", "H", "V"] * 2


def test_a_tick_stands_at_the_power_that_it_names():
    """Mutation: put the ticks at the middle of the buckets."""
    picture = latency_picture([Histogram("x", "pages", (0, 0, 1), 4, 4, 4)])
    (points,) = bars(picture).values()
    ticks = {text: float(x) for x, text in re.findall(r'<text x="([\d.]+)"[^>]*>(\d+)</text>', picture)}
    assert ticks["4"] == points[0][1] and ticks["8"] == points[2][1]


def test_few_samples_have_ticks_between_the_decades():
    """Mutation: powers of ten only, one of which would be the whole axis."""
    assert {"1", "2", "5"} <= set(texts(latency_picture([Histogram("x", "ns", (0, 6), 9, 2, 3)])))
    many = texts(latency_picture([Histogram("x", "ns", (0, 10**6), 9, 2, 3)]))
    assert {"1", "10", "1000", "10k", "1M"} <= set(many) and "5" not in many


@pytest.mark.parametrize("name", ["_hidden", "a$x^2$b", "<b>", HOSTILE, ""])
def test_names_in_pictures_are_taken_literally(name):
    """Mutation: put the name into the legend, or into the label, without escaping it."""
    picture = latency_picture([replace(histogram("x", 40_000, 20), name=name)])
    root = ElementTree.fromstring(picture)
    assert one_line(name, 34) in "".join(root.itertext())
    assert one_line(name, 34) in root.attrib["aria-label"]


@pytest.mark.parametrize("histograms", [[], [Histogram("empty", "ns")], [Histogram("zeros", "ns", (0, 0))]])
def test_nothing_to_draw(histograms):
    """Mutation: draw axes without a sample."""
    assert latency_picture(histograms) == ""


def test_extreme_histograms_are_drawn_within_the_plot():
    """Mutation: let the last bucket end past the axis, or the highest above it."""
    for counts in ((1,), (0,) * 63 + (1,), (5,) * 64, (10**12,)):
        picture = latency_picture([Histogram("x", "ns", counts, 1, 0, 1)])
        (points,) = bars(picture).values()
        across = [place for command, place, *_ in points if command in "MH"]
        up = [place for command, place, *_ in points if command == "V"]
        assert min(across) >= svg._LEFT and max(across) <= svg._RIGHT
        assert min(up) >= svg._TOP and max(up) == svg._BOTTOM
        assert len(texts(picture)) < 30 and "e+" not in picture


def test_no_more_series_than_colours():
    """Mutation: draw all of them."""
    picture = latency_picture([histogram(f"stage {number}", 4_000, 9) for number in range(SERIES + 2)])
    assert sorted(bars(picture)) == list(range(1, SERIES + 1)) and f"stage {SERIES}" not in picture
