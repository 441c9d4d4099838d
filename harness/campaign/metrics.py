"""Metrics of a case: what is measured, its statistic over a run, and the text that people read of it."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from harness.values.histogram import percentile
from harness.values.record import Record

MINIMUM, MEDIAN, MEAN = "minimum", "median", "mean"
WHOLE = ("operation", "fault")
"""Whole latencies: an operation from post to completion, a fault as traced. The others are stages within them."""

NOISE_FACTOR = 3
"""Ignore changes within 3x the noise band (few no-op builds were sampled)."""
SEED = re.compile(r"/seed=\d+$")

STAGES: Mapping[str, str] = {
    "operation": "one RDMA operation, from post to completion",
    "fault": "one page fault, as the driver resolves it",
    "task_queues": "rxe task, from being queued to its start",
    "tasks": "one run of an rxe task",
    "copies": "copy of data to or from an ODP region",
    "checks": "map and lock pages",
    "faults": "look up and map the pages of a fault",
    "snapshots": "map pages that are present, without a fault",
    "hmm": "hmm_range_fault(): CPU page tables",
    "invalidations": "MMU notifier callback that unmaps a range",
    "prefetches": "ibv_advise_mr() prefetch",
    "prefetch_works": "prefetch in a work queue",
    "deregistrations": "deregister a memory region",
    "events": "read a page-fault event (EQE)",
    "dispatches": "page-fault interrupt, to the work that it queues",
    "queues": "page-fault work, from being queued to its start",
    "works": "page-fault work, one event from start to resume",
    "keys": "look up the memory key of a fault",
    "translations": "update the page table of the device",
    "umrs": "one UMR work request, posted and completed",
    "resumes": "PAGE_FAULT_RESUME command",
    "zaps": "clear device page table entries of an invalidation",
}
"""The meaning of each stage. Names: guest/trace/stages.py"""


@dataclass(frozen=True)
class Metric:
    """One statistic of one latency of one case: medians over the runs, in ns (`exact`: instructions).

    `statistic` is over one run. `change` is patched minus baseline; in exact time the median over pairs of runs with
    the same seed. `noise_band`: no-op builds move it by up to this (0: not measured). `runs`: baseline, patched.
    """

    case: str
    stage: str
    statistic: str
    exact: bool
    baseline: float
    patched: float
    runs: tuple[int, int]
    noise_band: float
    change: float

    @property
    def name(self) -> str:
        """Name it within its case: `checks minimum`."""
        return f"{self.stage} {self.statistic}"

    @property
    def by_code(self) -> bool:
        """Return True if only the code of the stage moves it: the minimum in instructions.

        Everything else also varies with what else the machine does.
        """
        return self.exact and self.statistic == MINIMUM

    @property
    def threshold(self) -> float:
        """Return the change up to which it is noise, in instructions."""
        return NOISE_FACTOR * self.noise_band

    @property
    def title(self) -> str:
        """Describe it: ``minimum time in stage `checks` (map and lock pages)``."""
        text = STAGES.get(self.stage, "")
        if self.stage in WHOLE:
            return f"{self.statistic} time of {text}"
        return f"{self.statistic} time in stage `{self.stage}`" + (f" ({text})" if text else "")

    @property
    def values(self) -> str:
        """Give both values and the change: `868 -> 888 instructions, +20`."""
        if self.exact:
            return f"{self.baseline:.0f} -> {self.patched:.0f} instructions, {self.change:+.0f}"
        numbers = (self.baseline / 1000, self.patched / 1000, self.change / 1000)
        return "{:.1f} -> {:.1f} us, {:+.1f}".format(*numbers)


def samples(records: Sequence[Record], exact: bool) -> dict[str, dict[str, float]]:
    """Return by metric name the value of each run: medians of whole latencies, of each stage its mean.

    In exact time also the minimum of each stage, which nothing but its code moves. The stages of a run whose probes
    missed calls are left out.
    """
    result: dict[str, dict[str, float]] = defaultdict(dict)
    for number, record in enumerate(records):
        assert record.answer is not None
        run = record.case.id if exact and SEED.search(record.case.id) else f"run {number}"
        trace = record.answer.trace
        values: dict[str, list[int]] = {"operation": list(record.answer.operations_ns)}
        values["fault"] = [fault.duration_ns for fault in trace.faults]
        for stage, durations in values.items():
            if durations:
                result[f"{stage} {MEDIAN}"][run] = float(percentile(tuple(durations), 0.5))
        for histogram in trace.histograms if not trace.missed else ():
            if histogram.samples:
                result[f"{histogram.name} {MEAN}"][run] = histogram.mean
                if exact:
                    result[f"{histogram.name} {MINIMUM}"][run] = float(histogram.minimum)
    return result


def split(name: str) -> tuple[str, str]:
    """Split a metric's name into stage and statistic."""
    stage, _, statistic = name.rpartition(" ")
    return stage, statistic
