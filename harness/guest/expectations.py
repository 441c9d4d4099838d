"""What the models say against what was counted: by the trace, and by the driver itself where it counts.

A law is exact. Those of a driver's stages are in `STAGE_LAWS`, those of its own counters in `COUNTER_LAWS`; one
whose stage or counter this kernel lacks is left out, which the answer's notes say.
"""

from __future__ import annotations

from typing import Callable, Dict, List, NamedTuple, Sequence, Tuple

from harness.guest.mm.page_model import (
    MLX5_MEMORY,
    MLX5_TRANSPORT,
    RXE,
    PageModel,
    Rules,
)
from harness.values.answer import Expectation

SIDES = ("local", "remote")
COUNTED_BY_SIDE = ("faults", "invalidations", "snapshots")

RULES: Dict[Tuple[str, str], Rules] = {
    ("rxe", ""): RXE,
    ("mlx5", "transport"): MLX5_TRANSPORT,
    ("mlx5", "memory"): MLX5_MEMORY,
}
"""By driver and by the scheme in which the device tells it of faults."""

Models = Sequence[PageModel]


class StageLaw(NamedTuple):
    """How often a stage without an address runs."""

    expected: Callable[[PageModel], int]
    text: str


STAGE_LAWS: Dict[str, StageLaw] = {
    "events": StageLaw(lambda m: m.faults, "the card raises one event a fault"),
    "queues": StageLaw(lambda m: m.faults, "each event is queued once"),
    "works": StageLaw(lambda m: m.faults, "each event is worked on once"),
    "resumes": StageLaw(lambda m: m.faults, "each work resumes once"),
    "translations": StageLaw(lambda m: m.faults + m.snapshots, "each fault and each registration maps once"),
    "zaps": StageLaw(lambda m: m.zaps, "an invalidation zaps each run of mapped pages, and nothing else"),
}

COUNTER_LAWS: Dict[str, StageLaw] = {
    "page_faults": StageLaw(lambda m: m.asked_pages, "all pages that faults asked for, absent or not"),
    "page_faults_handled": StageLaw(lambda m: m.faults, "one a fault"),
    "page_invalidations": StageLaw(
        lambda m: m.zapped_pages, "pages of each run that is zapped, with the absent one that ends it"
    ),
    "page_invalidations_handled": StageLaw(
        lambda m: m.heard, "one an invalidation, if the region has any page mapped"
    ),
    "page_prefetch": StageLaw(lambda m: 0, "nobody advises"),
}
"""Ref: Linux 7.3 drivers/infiniband/hw/mlx5/restrack.c, fill_stat_mr_entry; 6.x lacks those `_handled`."""


def of_trace(
    models: Models, counts: Dict[str, int], sources: Dict[str, str], text: str
) -> Tuple[Expectation, ...]:
    """The laws of what was traced; `sources` says which symbol witnesses a stage, `text` what was done."""
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
        elsewhere = "nobody else uses on-demand paging on this machine"
        expectations.append(Expectation(f"{stage}_elsewhere", 0, counts[f"{stage}_other"], source, elsewhere))
    for stage, law in STAGE_LAWS.items():
        if stage in sources:
            expected = sum(law.expected(model) for model in models)
            expectations.append(
                Expectation(stage, expected, counts[stage], f"bcc {sources[stage]}", law.text)
            )
    for stage in ("faults", "resumes", "translations", "zaps"):
        if stage in sources:
            count = counts[f"{stage}_failed"]
            expectations.append(
                Expectation(f"{stage}_failed", 0, count, f"bcc {sources[stage]}", "none fails")
            )
    return tuple(expectations)


def of_counters(models: Models, counters: Sequence[Dict[str, int]]) -> Tuple[Expectation, ...]:
    """The laws of the driver's own counters, one table a side (summed over the side's registrations)."""
    source = "RDMA netlink, counters of the memory region"
    return tuple(
        Expectation(
            f"{name}_{side}",
            COUNTER_LAWS[name].expected(model),
            value,
            source,
            COUNTER_LAWS[name].text,
        )
        for side, model, found in zip(SIDES, models, counters)
        for name, value in sorted(found.items())
        if name in COUNTER_LAWS
    )


def notes(
    driver: str, missing: Sequence[str], models: Models, counters: Sequence[Dict[str, int]]
) -> List[str]:
    """What could not be counted here, and why."""
    said = [f"no probe for {name}: this kernel lacks its symbol" for name in missing]
    if driver == "rxe":
        return ["rxe keeps no ODP counters of its own: every count here is traced", *said]
    on_demand = [found for model, found in zip(models, counters) if model.region.odp]
    for name in COUNTER_LAWS:
        if on_demand and not any(name in found for found in on_demand):
            said.append(f"this driver keeps no counter {name}")
    unknown = sorted({name for found in on_demand for name in found if name not in COUNTER_LAWS})
    return said + [f"no law for the driver's counter {name}" for name in unknown]
