"""Expected counts, from the page-state models, against observed ones: of the trace and of the driver's own counters.

All are exact. A stage or counter that this kernel lacks is left out, and the answer's notes say so.
"""

from __future__ import annotations

from typing import Callable, Dict, List, NamedTuple, Sequence, Tuple

from harness.guest.mm.page_model import (
    MLX5_MEMORY,
    MLX5_TRANSPORT,
    RXE,
    DriverRules,
    PageModel,
)
from harness.values.answer import Expectation

SIDES = ("local", "remote")
COUNTED_BY_SIDE = ("faults", "invalidations", "snapshots")

DRIVER_RULES: Dict[Tuple[str, str], DriverRules] = {
    ("rxe", ""): RXE,
    ("mlx5", "transport"): MLX5_TRANSPORT,
    ("mlx5", "memory"): MLX5_MEMORY,
}
"""By driver, and by the page-fault scheme of the device."""

Models = Sequence[PageModel]


class ExpectedCount(NamedTuple):
    """A count as a function of a region's model, and the reason in words."""

    expected: Callable[[PageModel], int]
    text: str


STAGE_COUNTS: Dict[str, ExpectedCount] = {
    "events": ExpectedCount(lambda m: m.faults, "the card raises one event a fault"),
    "queues": ExpectedCount(lambda m: m.faults, "each event is queued once"),
    "works": ExpectedCount(lambda m: m.faults, "each event is handled by one work"),
    "resumes": ExpectedCount(lambda m: m.faults, "each work resumes once"),
    "translations": ExpectedCount(
        lambda m: m.faults + m.snapshots, "each fault and each registration maps once"
    ),
    "zaps": ExpectedCount(
        lambda m: m.zaps, "an invalidation zaps each run of mapped pages, and nothing else"
    ),
}

COUNTERS: Dict[str, ExpectedCount] = {
    "page_faults": ExpectedCount(lambda m: m.fault_pages, "all pages requested by faults, absent or not"),
    "page_faults_handled": ExpectedCount(lambda m: m.faults, "one a fault"),
    "page_invalidations": ExpectedCount(
        lambda m: m.zapped_pages, "pages of each run that is zapped, with the absent one that ends it"
    ),
    "page_invalidations_handled": ExpectedCount(
        lambda m: m.handled, "one an invalidation, if the region has any page mapped"
    ),
    "page_prefetch": ExpectedCount(lambda m: 0, "no prefetch advice is given"),
}
"""Ref: Linux 7.3 drivers/infiniband/hw/mlx5/restrack.c, fill_stat_mr_entry; 6.x lacks those `_handled`."""


def of_trace(
    models: Models, counts: Dict[str, int], sources: Dict[str, str], text: str
) -> Tuple[Expectation, ...]:
    """Compare the trace's counts; `sources` has the symbol of each traced stage, `text` names the operation."""
    expectations: List[Expectation] = []
    for stage in COUNTED_BY_SIDE:
        if stage not in sources:
            continue
        source = f"bcc {sources[stage]}"
        for side, model in zip(SIDES, models):
            expectations.append(
                Expectation(
                    f"{stage}_{side}",
                    int(getattr(model, stage)),
                    counts[f"{stage}_{side}"],
                    source,
                    text,
                )
            )
        elsewhere = "nothing else uses on-demand paging on this machine"
        expectations.append(Expectation(f"{stage}_elsewhere", 0, counts[f"{stage}_other"], source, elsewhere))
    for stage, count in STAGE_COUNTS.items():
        if stage in sources:
            expected = sum(count.expected(model) for model in models)
            expectations.append(
                Expectation(stage, expected, counts[stage], f"bcc {sources[stage]}", count.text)
            )
    for stage in ("faults", "resumes", "translations", "zaps"):
        if stage in sources:
            failed = counts[f"{stage}_failed"]
            expectations.append(
                Expectation(f"{stage}_failed", 0, failed, f"bcc {sources[stage]}", "none fails")
            )
    return tuple(expectations)


def of_counters(models: Models, counters: Sequence[Dict[str, int]]) -> Tuple[Expectation, ...]:
    """Compare the driver's own counters, one table a side (summed over the side's registrations)."""
    source = "RDMA netlink, counters of the memory region"
    return tuple(
        Expectation(
            f"{name}_{side}",
            COUNTERS[name].expected(model),
            value,
            source,
            COUNTERS[name].text,
        )
        for side, model, observed in zip(SIDES, models, counters)
        for name, value in sorted(observed.items())
        if name in COUNTERS
    )


def notes(
    driver: str, missing: Sequence[str], models: Models, counters: Sequence[Dict[str, int]]
) -> List[str]:
    """Return what could not be counted here, and why."""
    missing_notes = [f"no probe for {name}: this kernel lacks its symbol" for name in missing]
    if driver == "rxe":
        return ["rxe keeps no ODP counters of its own: every count here is traced", *missing_notes]
    on_demand = [observed for model, observed in zip(models, counters) if model.region.odp]
    for name in COUNTERS:
        if on_demand and not any(name in observed for observed in on_demand):
            missing_notes.append(f"this driver keeps no counter {name}")
    unknown = sorted({name for observed in on_demand for name in observed if name not in COUNTERS})
    return missing_notes + [f"no expected count for the driver's counter {name}" for name in unknown]
