"""Measure how exactly instruction counts repeat on an emulated card: stage by stage, over many restores."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from harness.bench.measurement import Measurement
from harness.errors import SetupError
from harness.plan.plan import Planned
from harness.plan.runner import CaseRunner
from harness.plan.session import Session
from harness.values.answer import Answer
from harness.values.histogram import percentile

SHARES = {"p10": 0.1, "p50": 0.5}


@dataclass(frozen=True)
class Band:
    """One statistic of one stage, ns of guest time (instructions), over all restores.

    `spread_percent` is the difference of maximum and minimum over the median; `equal` counts the restores with the most
    frequent value.
    """

    stage: str
    statistic: str
    median_ns: int
    min_ns: int
    max_ns: int
    spread_percent: float
    equal: int


@dataclass(frozen=True)
class Repeats(Measurement):
    """The bands of a case over `restores` restores, each with a new card process."""

    case: str
    kernel: str
    restores: int
    bands: tuple[Band, ...]

    def plain(self) -> dict[str, object]:
        """Return JSON values for --json: also the spread of each statistic by name."""
        spreads = {
            f"{band.stage}_{band.statistic}_spread_percent": band.spread_percent for band in self.bands
        }
        return {**spreads, **super().plain()}


def measure(session: Session, planned: Planned, restores: int = 20) -> Repeats:
    """Run one case `restores` times, in exact time."""
    answers, release = [], ""
    for number in range(restores):
        session.say(f"{planned.case.id}: restore {number + 1} of {restores}")
        record, _ = CaseRunner(session).run(replace(planned, clock="exact"))
        if record.answer is None or record.answer.status != "done":
            raise SetupError(f"{planned.case.id} did not run", [reason.text for reason in record.reasons])
        answers.append(record.answer)
        release = record.environment["kernel"]
    return Repeats(planned.case.id, release, restores, tuple(bands(answers)))


def bands(answers: Sequence[Answer]) -> Iterator[Band]:
    """Yield the 10th percentile and the median of every stage that all answers have samples of."""
    samples = [dict(_samples(answer)) for answer in answers]
    for stage in samples[0]:
        if not all(one.get(stage) for one in samples):
            continue
        for statistic, share in SHARES.items():
            values = [percentile(one[stage], share) for one in samples]
            middle = int(statistics.median(values))
            spread = 100 * (max(values) - min(values)) / middle if middle else 0.0
            equal = max(map(values.count, values))
            yield Band(stage, statistic, middle, min(values), max(values), round(spread, 4), equal)


def _samples(answer: Answer) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Yield times by stage: operations from post to completion, faults as traced, and each stage within them."""
    faults = answer.trace.faults
    yield "operation", answer.operations_ns
    yield "fault", tuple(fault.duration_ns for fault in faults)
    for stage in sorted({name for fault in faults for name in fault.inner_ns}):
        yield f"fault.{stage}", tuple(fault.inner_ns[stage] for fault in faults if stage in fault.inner_ns)
