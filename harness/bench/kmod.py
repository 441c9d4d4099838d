"""Measure the kernel module: a page-fault handler in Python, events at the card's best rate, probes of mlx5_ib."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from harness.bench.measurement import Measurement
from harness.errors import SetupError
from harness.plan.checkout import find_folder
from harness.plan.plan import Planned, load
from harness.plan.runner import CaseRunner
from harness.plan.session import Session
from harness.values.histogram import percentile
from harness.values.module import ModulePolicy, ModuleReport
from harness.values.rule import Rule

HANDLER, EVENTS, OBSERVE = "odp2015-handler", "odp2015-events", "odp2015-observe"
BURST, BURSTS = 2000, 5
OBSERVED_ROUNDS = 50


@dataclass(frozen=True)
class KmodTimes(Measurement):
    """Times of a handler in Python: from the interrupt to the end of its resume command, real time.

    `events_per_s` is the rate of events that reach Python when the card sends bursts of BURST, each decoded, compared
    and resumed by the module; `lost` of them did not arrive. `observe_instructions_per_fault` are those of both probes
    of a fault, in exact time, without the traps that lead to them.
    """

    kernel: str
    device: str
    answers: int
    handler_p50_us: float
    handler_p99_us: float
    events: int
    events_per_s: int
    lost: int
    observe_faults: int
    observe_instructions_per_fault: int


def measure(session: Session, series: str, model: str, rounds: int = 200) -> KmodTimes:
    """Run three machines. `rounds` are writes that fault twice each; no more bursts than that are sent."""
    handler, release = _run(session, _planned(series, model, HANDLER, rounds, "real"))
    burst = _planned(series, model, EVENTS, min(BURSTS, rounds), "real")
    rules = tuple(_in_bursts(burst.case.rules))
    use = burst.case.module
    assert use is not None
    case = replace(burst.case, rules=rules, module=replace(use, policies=(ModulePolicy("resume"),)))
    streamed, _ = _run(session, replace(burst, case=case))
    observed, _ = _run(session, _planned(series, model, OBSERVE, OBSERVED_ROUNDS, "exact"))
    faults = observed.stats["observed"]
    return KmodTimes(
        release,
        model,
        len(handler.answer_ns),
        percentile(handler.answer_ns, 0.5) / 1000,
        percentile(handler.answer_ns, 0.99) / 1000,
        streamed.heard,
        round(1e9 * (streamed.heard - 1) / streamed.span_ns),
        streamed.stats["events"] - streamed.heard + streamed.stats["lost_memory"],
        faults,
        observed.stats["probe_ns"] // faults,
    )


def _in_bursts(rules: Sequence[Rule]) -> list[Rule]:
    return [replace(rule, events=BURST) if rule.kind == "drawn-events" else rule for rule in rules]


def _planned(series: str, model: str, name: str, rounds: int, clock: str) -> Planned:
    """Return the first case of a plan for a card, with `rounds` rounds."""
    path: Path = find_folder("testplans", None) / f"{name}.toml"
    planned = next(load(path).cases((series,), clock, (model,)), None)
    if planned is None or model not in planned.plan.devices:
        raise SetupError(f"{name} has no case for {model}")
    work = replace(planned.case.workload, rounds=rounds)
    return replace(planned, case=replace(planned.case, workload=work, trace=False))


def _run(session: Session, planned: Planned) -> tuple[ModuleReport, str]:
    session.say(f"{planned.case.id}, {planned.case.workload.rounds} rounds, {planned.clock} time")
    record, _ = CaseRunner(session).run(planned)
    answer = record.answer
    if answer is None or answer.status != "done" or answer.module is None:
        reasons = [reason.text for reason in record.reasons]
        raise SetupError(f"{planned.case.id} did not run", reasons)
    return answer.module, record.environment["kernel"]
