"""The stages of a page fault, as data: for each driver their names, symbols, and how their calls are joined.

Names are stable; symbols differ between kernels, and are looked up in the running one. A stage without a symbol there
is reported as missing. A new stage is one entry here and one line of probes.c.
"""

from __future__ import annotations

from typing import Dict, NamedTuple, Optional, Set, Tuple

SPAN, EXIT, QUEUE, INTERRUPT = "span", "exit", "queue", "interrupt"


class Stage(NamedTuple):
    """A stage: its name in counts and histograms, the probe of probes.c, and that probe's symbols, best first.

    `shape` says how the probe is attached: SPAN to a call and its return; EXIT to the return only, by
    trampoline, which counts inside of an interrupt what a kprobe would miss there; QUEUE from the moment that
    a work of this function is queued to its start; INTERRUPT from the call, inside of an interrupt, to the
    queueing of each work that it queues. `key` describes how its calls are joined to others. A stage that is
    `sided` has an address, and so a region. A trampoline is compiled for a function of `module`, before that is
    loaded.
    """

    name: str
    probe: str
    symbols: Tuple[str, ...]
    key: str
    sided: bool = False
    shape: str = SPAN
    module: str = ""

    @property
    def timed(self) -> bool:
        """True if it has a duration, and so a histogram."""
        return self.shape != EXIT


class Place(NamedTuple):
    """A symbol of the running kernel; one of vmlinux has no module."""

    symbol: str
    module: str
    address: int = 0

    def __str__(self) -> str:
        return f"{self.symbol} [{self.module}]" if self.module else self.symbol


# The module that holds this differs: ib_uverbs in 6.x, ib_core in 7.x.
_LOOKUP = ("ib_umem_odp_map_dma_and_lock",)
# Called by it to fault in the CPU's page tables. Ref: Linux 7.3 drivers/infiniband/core/umem_odp.c
_HMM = ("hmm_range_fault_unlocked_timeout", "hmm_range_fault")
_BY_ADDRESS = "thread, and address range"
_BY_THREAD = "thread, within the work"
_BY_WORK = "work, from queueing to start"

# In the order of probes.c; the first ones are in a fault's record.
_INNER = ("faults", "keys", "hmm", "translations", "umrs", "resumes", "zaps", "invalidations")
_ALL = (
    *_INNER,
    "works",
    "snapshots",
    "events",
    "dispatches",
    "queues",
    "prefetches",
    "prefetch_works",
    "deregistrations",
    "task_queues",
    "tasks",
    "copies",
    "checks",
)

# Soft-RoCE faults in line: a task copies, a copy checks its pages, the lookup of pages is the fault.
# Ref: Linux 7.3 drivers/infiniband/sw/rxe/rxe_odp.c, rxe_task.c
_RXE = (
    Stage("task_queues", "task", ("do_work",), _BY_WORK, shape=QUEUE),
    Stage("tasks", "task", ("do_work",), "thread"),
    Stage("copies", "copy", ("rxe_odp_mr_copy",), "thread, within the task"),
    Stage("checks", "check", ("rxe_odp_map_range_and_lock",), "thread, within the copy"),
    Stage("faults", "lookup", _LOOKUP, _BY_ADDRESS, True),
    Stage("snapshots", "lookup", _LOOKUP, _BY_ADDRESS, True),
    Stage("hmm", "hmm", _HMM, "thread, within the lookup"),
    Stage("invalidations", "invalidate", ("rxe_ib_invalidate_range",), _BY_ADDRESS, True),
    Stage("prefetches", "prefetch", ("rxe_ib_advise_mr",), "thread"),
    Stage("prefetch_works", "prefetch_work", ("rxe_ib_prefetch_mr_work",), "thread"),
    Stage("deregistrations", "deregister", ("rxe_dereg_mr",), "thread"),
)

# A card raises an event, a work resolves it. Ref: Linux 7.3 drivers/infiniband/hw/mlx5/odp.c, umr.c
_MLX5 = (
    Stage("events", "event", ("mlx5_eq_get_eqe",), "order", shape=EXIT, module="mlx5_core"),
    Stage(
        "dispatches",
        "interrupt",
        ("mlx5_ib_eq_pf_int",),
        "CPU, within the interrupt",
        shape=INTERRUPT,
        module="mlx5_ib",
    ),
    Stage("queues", "work", ("mlx5_ib_eqe_pf_action",), _BY_WORK, shape=QUEUE),
    Stage("works", "work", ("mlx5_ib_eqe_pf_action",), "thread"),
    Stage("keys", "key", ("find_odp_mkey",), _BY_THREAD),
    Stage("faults", "lookup", _LOOKUP, _BY_ADDRESS, True),
    Stage("snapshots", "lookup", _LOOKUP, _BY_ADDRESS, True),
    Stage("hmm", "hmm", _HMM, "thread, within the lookup"),
    Stage("translations", "translate", ("mlx5r_umr_update_xlt",), _BY_THREAD),
    Stage("umrs", "umr", ("mlx5r_umr_post_send_wait",), "thread, within the translation"),
    Stage("resumes", "resume", ("mlx5_ib_page_fault_resume",), _BY_THREAD),
    Stage("invalidations", "invalidate", ("mlx5_ib_invalidate_range",), _BY_ADDRESS, True),
    Stage("zaps", "translate", ("mlx5r_umr_update_xlt",), "thread, within the invalidation"),
    Stage("prefetches", "prefetch", ("mlx5_ib_advise_mr_prefetch",), "thread"),
    Stage("prefetch_works", "prefetch_work", ("mlx5_ib_prefetch_mr_work",), "thread"),
    Stage("deregistrations", "deregister", ("mlx5_ib_dereg_mr",), "thread"),
)


class TokenPlace(NamedTuple):
    """Offsets of a fault's token and sub-type from its work, in bytes; 0 token bytes: there is no token."""

    token_at: int = 0
    token_bytes: int = 0
    sub_type_at: int = 0


# By the size of `struct mlx5_pagefault`. Ref: Linux 6.1 and 7.3 drivers/infiniband/hw/mlx5/odp.c
TOKENS = {80: TokenPlace(-44, 4, -40), 96: TokenPlace(-56, 8, -48)}


class Driver(NamedTuple):
    """A driver's stages, and the one that is the whole fault: a record is written at its end."""

    name: str
    stages: Tuple[Stage, ...]
    whole: str
    module: str


RXE = Driver("rxe", _RXE, "faults", "rdma_rxe")
MLX5 = Driver("mlx5", _MLX5, "works", "mlx5_ib")
DRIVERS: Dict[str, Driver] = {driver.name: driver for driver in (RXE, MLX5)}


def number(name: str) -> int:
    """Return a stage's number in probes.c."""
    return _ALL.index(name)


def names() -> Tuple[str, ...]:
    """Return the names of all stages of all drivers, by number."""
    return _ALL


def inner() -> Tuple[str, ...]:
    """Return the names of the stages that are in a fault's record, by number."""
    return _INNER


def declarations(driver: Driver) -> str:
    """Return the declarations of probes.c for a driver: stage numbers, the whole fault, trampolines.

    They depend on no kernel: what differs there is written to the program's state when it is attached.
    """
    lines = [
        f"enum {{ {', '.join(f'STAGE_{name.upper()}' for name in _ALL)}, STAGES, INNER = {len(_INNER)} }};",
        f"#define STAGE_WHOLE STAGE_{driver.whole.upper()}",
    ]
    for stage in driver.stages:
        probe = stage.probe.upper()
        if stage.shape == QUEUE:
            lines.append(f"#define STAGE_QUEUED STAGE_{stage.name.upper()}")
        elif stage.shape != SPAN:
            lines += [f"#define {probe}_MODULE {stage.module}", f"#define {probe}_SYMBOL {stage.symbols[0]}"]
    return "\n".join(lines) + "\n"


def places(driver: Driver, kallsyms: str) -> Dict[str, Place]:
    """Find each stage's symbol in the text of /proc/kallsyms; stages without one are left out.

    The first of a stage's symbols that exists is used, under its own name or with a compiler's suffix (`.constprop.0`,
    `.isra.0`). A symbol of several modules does not count.
    """
    symbols = {symbol for stage in driver.stages for symbol in stage.symbols}
    candidates: Dict[str, Place] = {}
    modules: Dict[str, Set[str]] = {}
    for line in kallsyms.splitlines():
        parts = line.split()
        if (
            len(parts) not in (3, 4)
            or parts[2].partition(".")[0] not in symbols
            or parts[2].endswith(".cold")
        ):
            continue
        bare = parts[2].partition(".")[0]
        module = parts[3].strip("[]") if len(parts) == 4 else ""
        modules.setdefault(bare, set()).add(module)
        if parts[2] == bare or bare not in candidates:
            candidates[bare] = Place(parts[2], module, int(parts[0], 16))
    unique = {bare: place for bare, place in candidates.items() if len(modules[bare]) == 1}
    chosen = {stage.name: _first(stage, unique) for stage in driver.stages}
    return {name: place for name, place in chosen.items() if place is not None}


def _first(stage: Stage, symbols: Dict[str, Place]) -> Optional[Place]:
    return next((symbols[symbol] for symbol in stage.symbols if symbol in symbols), None)
