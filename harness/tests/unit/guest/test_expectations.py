"""Laws from models and counts: each must be able to fail."""

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


def moved():
    """Both regions of 4 pages lost once and transferred once."""
    models = [PageModel(Region(4 * 4096), MLX5_TRANSPORT) for _ in range(2)]
    for model, write in zip(models, (False, True), strict=True):
        model.write_all()
        model.register()
        model.drop()
        model.transfer(4096, write)
    return models


def seen():
    """What a trace of that holds."""
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
    found = expectations.of_trace(moved(), counts or seen(), SOURCES, "text")
    found += expectations.of_counters(moved(), [counters, COUNTERS])
    return [law.name for law in found if not law.holds]


def test_all_laws_hold():
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
def test_each_count_off_by_one_breaks_its_law(name, by):
    """Mutation: drop an entry of STAGE_LAWS, or a stage of COUNTED_BY_SIDE."""
    counts = seen()
    counts[name] += by
    assert broken(counts) == [name]


def test_a_count_elsewhere_breaks_its_law():
    """Mutation: do not look at `other`."""
    assert broken({**seen(), "faults_other": 1}) == ["faults_elsewhere"]


@pytest.mark.parametrize("name", COUNTERS)
def test_each_counter_off_by_one_breaks_its_law(name):
    """Mutation: drop an entry of COUNTER_LAWS."""
    assert broken(counters={**COUNTERS, name: COUNTERS[name] + 1}) == [f"{name}_local"]


def test_a_stage_that_is_missing_has_no_law():
    """Mutation: expect 0 of it."""
    sources = {name: text for name, text in SOURCES.items() if name != "events"}
    counts = {name: n for name, n in seen().items() if name != "events"}
    assert all(law.holds for law in expectations.of_trace(moved(), counts, sources, ""))


def test_what_is_not_counted_is_said():
    """Mutation: say nothing of a counter that an older driver lacks, or that a newer one has more."""
    older = {"page_faults": 4, "page_invalidations": 4, "page_prefetch": 0, "page_new": 1}
    said = expectations.notes("mlx5", ("events",), moved(), [older, older])
    assert said == [
        "no probe for events: this kernel lacks its symbol",
        "this driver keeps no counter page_faults_handled",
        "this driver keeps no counter page_invalidations_handled",
        "no law for the driver's counter page_new",
    ]
    assert expectations.notes("rxe", (), moved(), [{}, {}])[0].startswith("rxe keeps no ODP counters")
