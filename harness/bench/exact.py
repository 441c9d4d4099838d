"""Measure how exactly a case repeats: the first case of a plan several times, in exact and in real time."""

from __future__ import annotations

from dataclasses import dataclass, replace

from harness.bench.measurement import Measurement
from harness.errors import SetupError
from harness.plan.plan import Planned
from harness.plan.runner import CaseRunner
from harness.plan.session import Session


@dataclass(frozen=True)
class Spread(Measurement):
    """The difference between the slowest and the fastest of `runs` runs.

    In exact time in guest nanoseconds, over the whole answer's elapsed time; in real time in percent of the
    median. `equal_answers` counts exact answers equal to the first in every field.
    """

    case: str
    kernel: str
    runs: int
    exact_elapsed_ns: int
    exact_spread_ns: int
    equal_answers: int
    real_spread_percent: float


def measure(session: Session, planned: Planned, runs: int = 10) -> Spread:
    """Run one case `runs` times in both clocks."""
    answers = {}
    for clock in ("exact", "real"):
        session.say(f"{runs} runs in {clock} time")
        records = [CaseRunner(session).run(replace(planned, clock=clock))[0] for _ in range(runs)]
        bad = next((record for record in records if record.answer is None), None)
        if bad is not None:
            raise SetupError(f"{planned.case.id} did not run", [reason.text for reason in bad.reasons])
        answers[clock] = [record.answer for record in records if record.answer is not None]
        release = records[0].environment["kernel"]
    exact = [answer.elapsed_ns for answer in answers["exact"]]
    real = sorted(answer.elapsed_ns for answer in answers["real"])
    return Spread(
        planned.case.id,
        release,
        runs,
        exact[0],
        max(exact) - min(exact),
        sum(answer == answers["exact"][0] for answer in answers["exact"]),
        round(100 * (real[-1] - real[0]) / real[len(real) // 2], 1),
    )
