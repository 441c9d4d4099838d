"""The stages of a page fault, as data: what each driver's are called, which symbol shows them, how they join.

Names are stable; symbols differ between kernels, and are looked up in the running one. A stage without a
symbol there is missing, which the answer says. A new stage is one entry here and one line of probes.c.
"""

from __future__ import annotations

from typing import Dict, NamedTuple, Optional, Tuple

SPAN, EXIT = "span", "exit"


class Stage(NamedTuple):
    """A stage: its name in counts and histograms, the probe of probes.c, and that probe's symbols, best first.

    `shape` says how the probe is attached: SPAN to a call and its return; EXIT to the return only, by
    trampoline, which counts inside of an interrupt what a kprobe would miss there. `key` says in words by
    what its calls are joined to others. A stage that is `sided` knows an address, and so a region.
    """

    name: str
    probe: str
    symbols: Tuple[str, ...]
    key: str
    sided: bool = False
    shape: str = SPAN


class Place(NamedTuple):
    """Where a symbol is in the running kernel."""

    symbol: str
    module: str


# The module that holds this differs: ib_uverbs in 6.x, ib_core in 7.x.
_LOOKUP = ("ib_umem_odp_map_dma_and_lock",)
_BY_ADDRESS = "thread, and address range"
_BY_THREAD = "thread, within the work"

# In the order in which probes.c knows them.
_ALL = (
    "works",
    "faults",
    "snapshots",
    "invalidations",
    "translations",
    "zaps",
    "resumes",
    "events",
)

# Soft-RoCE faults in line: the lookup of pages is the fault.
# Ref: Linux 7.3 drivers/infiniband/sw/rxe/rxe_odp.c
_RXE = (
    Stage("faults", "lookup", _LOOKUP, _BY_ADDRESS, True),
    Stage("snapshots", "lookup", _LOOKUP, _BY_ADDRESS, True),
    Stage("invalidations", "invalidate", ("rxe_ib_invalidate_range",), _BY_ADDRESS, True),
)

# A card raises an event, a work resolves it. Ref: Linux 7.3 drivers/infiniband/hw/mlx5/odp.c, umr.c
_MLX5 = (
    Stage("works", "work", ("mlx5_ib_eqe_pf_action",), "thread"),
    Stage("faults", "lookup", _LOOKUP, _BY_ADDRESS, True),
    Stage("snapshots", "lookup", _LOOKUP, _BY_ADDRESS, True),
    Stage("invalidations", "invalidate", ("mlx5_ib_invalidate_range",), _BY_ADDRESS, True),
    Stage("translations", "translate", ("mlx5r_umr_update_xlt",), _BY_THREAD),
    Stage("zaps", "translate", ("mlx5r_umr_update_xlt",), "thread, within the invalidation"),
    Stage("resumes", "resume", ("mlx5_ib_page_fault_resume",), _BY_THREAD),
    Stage("events", "event", ("mlx5_eq_get_eqe",), "order", shape=EXIT),
)


class Driver(NamedTuple):
    """A driver's stages, and which of them is the whole of a fault: a record is written at its end."""

    name: str
    stages: Tuple[Stage, ...]
    whole: str


RXE = Driver("rxe", _RXE, "faults")
MLX5 = Driver("mlx5", _MLX5, "works")
DRIVERS: Dict[str, Driver] = {driver.name: driver for driver in (RXE, MLX5)}


def number(name: str) -> int:
    """A stage's number in probes.c."""
    return _ALL.index(name)


def names() -> Tuple[str, ...]:
    """The names of all stages of all drivers, by number."""
    return _ALL


def declarations(driver: Driver, found: Dict[str, Place]) -> str:
    """What probes.c needs to know of the table: the stages' numbers, the one that is the whole fault, trampolines."""
    lines = [
        f"enum {{ {', '.join(f'STAGE_{name.upper()}' for name in _ALL)}, STAGES }};",
        f"#define STAGE_WHOLE STAGE_{driver.whole.upper()}",
    ]
    for stage in driver.stages:
        if stage.shape == EXIT and stage.name in found:
            place = found[stage.name]
            lines.append(f"#define {stage.probe.upper()}_MODULE {place.module}")
            lines.append(f"#define {stage.probe.upper()}_SYMBOL {place.symbol}")
    return "\n".join(lines) + "\n"


def places(driver: Driver, kallsyms: str) -> Dict[str, Place]:
    """Where each stage's symbol is, from the text of /proc/kallsyms; stages without one are left out.

    Of a stage's symbols the first that exists counts, under its own name or with the suffix that a compiler
    gives to a function it changed (`.constprop.0`, `.isra.0`).
    """
    wanted = {symbol for stage in driver.stages for symbol in stage.symbols}
    found: Dict[str, Place] = {}
    for line in kallsyms.splitlines():
        parts = line.split()
        if len(parts) != 4 or parts[2].partition(".")[0] not in wanted or parts[2].endswith(".cold"):
            continue
        bare = parts[2].partition(".")[0]
        if parts[2] == bare or bare not in found:
            found[bare] = Place(parts[2], parts[3].strip("[]"))
    chosen = {stage.name: _first(stage, found) for stage in driver.stages}
    return {name: place for name, place in chosen.items() if place is not None}


def _first(stage: Stage, found: Dict[str, Place]) -> Optional[Place]:
    return next((found[symbol] for symbol in stage.symbols if symbol in found), None)
