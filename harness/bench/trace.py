"""Measure what tracing loses and costs, on soft-RoCE, where a nanosecond of exact time is one instruction."""

from __future__ import annotations

import math
import statistics
import time
from dataclasses import dataclass

from harness.bench.measurement import Measurement
from harness.errors import SetupError
from harness.machine.snapshot import Snapshot
from harness.plan.session import CASE, PREPARE, Session
from harness.values.answer import Answer
from harness.values.case import PROBES, Case, PageLoss, Region, Request, Workload

DEVICE = "soft-roce"
PAGE = 4096
MANY = (1024, 200)
FEW = (64, 20)
"""Pages and rounds; every page of a round is one fault."""

RESTORES = 5


@dataclass(frozen=True)
class TraceCost(Measurement):
    """The `faults` of one run, those missing in its histograms, those without a record.

    `instructions_per_fault` without any probe; `..._added` by the probes of all stages, and by the same probes with
    programs that return at once (`..._added_empty`). `cost_ratio_to_empty` is a traced fault over one with empty
    programs. `ready_s`: wall seconds from a snapshot to a machine that is traced, the median of RESTORES.
    """

    kernel: str
    faults: int
    lost_in_histograms: int
    lost_records: int
    instructions_per_fault: int
    instructions_per_fault_added: int
    instructions_per_fault_added_empty: int
    cost_ratio_to_empty: float
    ready_s: float


def measure(session: Session, series: str) -> TraceCost:
    """Make one long run in real time, three short ones in exact time, and RESTORES restores."""
    kernel = session.kernel(series)
    session.say(f"{MANY[0] * MANY[1]} faults in one run")
    _, snapshot = session.prepared(series, DEVICE, "real")
    many = _answer(session, snapshot, MANY, traced=True)
    seen = {histogram.name: histogram.samples for histogram in many.trace.histograms}
    expected = MANY[0] * MANY[1]
    spent = {}
    for probes in PROBES:
        session.say(f"probes: {probes}")
        shape = session.machines.shape("exact", "tcg")
        prepared = session.machines.prepared(
            kernel, shape, Request(PREPARE, "prepare", DEVICE, probes=probes)
        )
        few = _answer(session, prepared, FEW, traced=probes == "all")
        spent[probes] = sum(few.operations_ns) / (FEW[0] * FEW[1])
    return TraceCost(
        kernel.release,
        seen["faults"],
        expected - seen["faults"] + many.trace.missed,
        many.trace.lost,
        round(spent["none"]),
        round(spent["all"] - spent["none"]),
        round(spent["empty"] - spent["none"]),
        round(spent["all"] / spent["empty"], 3),
        round(statistics.median(_ready(session, snapshot) for _ in range(RESTORES)), 2),
    )


def _answer(session: Session, snapshot: Snapshot, amount: tuple[int, int], traced: bool) -> Answer:
    pages, rounds = amount
    region = Region(pages * PAGE)
    work = Workload("write", rounds, region, region, PageLoss("dontneed", "remote"), mtu_bytes=PAGE)
    case = Case("bench-trace", DEVICE, work, trace=traced, timeout_s=600.0)
    reply = session.machines.run(snapshot, Request(CASE, "case", DEVICE, case), math.inf)
    if reply.answer is None or reply.answer.status != "done":
        problem = reply.problem or (reply.answer.problem if reply.answer else "")
        raise SetupError(f"the case of {pages * rounds} faults did not run", [problem])
    return reply.answer


def _ready(session: Session, snapshot: Snapshot) -> float:
    began = time.monotonic()
    session.machines.run(snapshot, Request(CASE, "wait", DEVICE), 60.0)
    return time.monotonic() - began
