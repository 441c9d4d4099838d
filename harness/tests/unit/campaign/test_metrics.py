"""Metrics: the text that people read, and the table of stages."""

import pytest

from harness.campaign.metrics import STAGES, WHOLE, Metric
from harness.guest.trace import stages


def metric(stage, statistic="minimum", exact=True):
    return Metric("odp-write/7.3", stage, statistic, exact, 868, 888, (4, 4), 5, 20)


def test_every_stage_of_the_trace_has_a_description():
    """Mutations: forget a new stage of guest/trace/stages.py; keep one that is gone."""
    assert set(STAGES) == {*stages.names(), *WHOLE}
    assert max(map(len, STAGES.values())) <= 60


@pytest.mark.parametrize(
    ("stage", "statistic", "title"),
    [
        ("checks", "minimum", "minimum time in stage `checks` (map and lock pages)"),
        ("fault", "median", "median time of one page fault, as the driver resolves it"),
        ("fault: dma map", "mean", "mean time in stage `fault: dma map`"),
    ],
)
def test_a_title_writes_out_statistic_and_stage(stage, statistic, title):
    """Mutations: leave the statistic out; print None for an unknown stage."""
    assert metric(stage, statistic).title == title


def test_values_are_instructions_or_microseconds():
    """Mutation: print ns of real time as instructions."""
    assert metric("checks").values == "868 -> 888 instructions, +20"
    assert metric("checks", exact=False).values == "0.9 -> 0.9 us, +0.0"


def test_only_a_minimum_in_instructions_is_a_property_of_the_code():
    """Mutations: means too; minima in real time too."""
    assert metric("checks").by_code
    assert not metric("checks", "mean").by_code and not metric("checks", exact=False).by_code
