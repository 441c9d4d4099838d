"""Expected counts from models: each must be able to fail."""

import pytest

from harness.guest import expectations
from harness.guest.mm.page_model import (
    MLX5_TRANSPORT,
    PageModel,
)
from harness.guest.trace import stages
from harness.values.case import Region

SOURCES = {stage.name: f"{stage.symbols[0]} [m]" for stage in stages.MLX5.stages}
SIDED = {stage.name for stage in stages.MLX5.stages if stage.sided}


def models_of_one_write():
    """Return models of two regions of 4 pages, invalidated once and transferred once."""
    models = [PageModel(Region(4 * 4096), MLX5_TRANSPORT) for _ in range(2)]
    for model, write in zip(models, (False, True), strict=True):
        model.write_all()
        model.register()
        model.unmap_all()
        model.transfer(4096, write)
    return models


def traced():
    """Return the counts of a trace of that."""
    counts = {f"{name}_{side}": 1 for name in SIDED for side in expectations.SIDES}
    counts |= {f"{name}_other": 0 for name in SIDED}
    counts |= {f"{name}_failed": 0 for name in SOURCES}
    return counts | {"events": 2, "queues": 2, "works": 2, "resumes": 2, "translations": 4, "zaps": 2}


COUNTERS = {
    "page_faults": 4,
    "page_faults_handled": 1,
    "page_invalidations": 4,
    "page_invalidations_handled": 1,
    "page_prefetch": 0,
}


def broken(counts=None, counters=COUNTERS):
    result = expectations.of_trace(models_of_one_write(), counts or traced(), SOURCES, "text")
    result += expectations.of_counters(models_of_one_write(), [counters, COUNTERS])
    return [count.name for count in result if not count.holds]


def test_all_counts_are_as_expected():
    assert broken() == []


@pytest.mark.parametrize(
    "name",
    [
        *(f"{stage}_{side}" for stage in sorted(SIDED) for side in expectations.SIDES),
        *("events", "queues", "works", "resumes", "translations", "zaps"),
        *(f"{stage}_failed" for stage in ("faults", "resumes", "translations", "zaps")),
    ],
)
@pytest.mark.parametrize("by", [-1, 1])
def test_each_stage_count_off_by_one_is_found(name, by):
    """Mutation: drop an entry of STAGE_COUNTS, or a stage of COUNTED_BY_SIDE."""
    counts = traced()
    counts[name] += by
    assert broken(counts) == [name]


def test_count_of_other_regions_is_found():
    """Mutation: do not look at `other`."""
    assert broken({**traced(), "faults_other": 1}) == ["faults_elsewhere"]


@pytest.mark.parametrize("name", COUNTERS)
def test_each_counter_off_by_one_is_found(name):
    """Mutation: drop an entry of COUNTERS."""
    assert broken(counters={**COUNTERS, name: COUNTERS[name] + 1}) == [f"{name}_local"]


def test_missing_stage_has_no_expected_count():
    """Mutation: expect 0 of it."""
    sources = {name: text for name, text in SOURCES.items() if name != "events"}
    counts = {name: n for name, n in traced().items() if name != "events"}
    assert all(count.holds for count in expectations.of_trace(models_of_one_write(), counts, sources, ""))


def test_uncounted_stages_and_counters_are_noted():
    """Mutation: leave out a counter that an older driver lacks, or one that only a newer one has."""
    older = {"page_faults": 4, "page_invalidations": 4, "page_prefetch": 0, "page_new": 1}
    result = expectations.notes("mlx5", ("events",), models_of_one_write(), [older, older])
    assert result == [
        "no probe for events: this kernel lacks its symbol",
        "this driver keeps no counter page_faults_handled",
        "this driver keeps no counter page_invalidations_handled",
        "no expected count for the driver's counter page_new",
    ]
    assert expectations.notes("rxe", (), models_of_one_write(), [{}, {}])[0].startswith(
        "rxe keeps no ODP counters"
    )
