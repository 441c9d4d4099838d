"""One case: a transfer, traced and checked against the page-state model, or a scenario; and its answer."""

from __future__ import annotations

import gc
import os
import time
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any, Dict, List, Optional, Tuple

from harness.guest import expectations, leaks
from harness.guest.errors import Unsupported, WorkFailed
from harness.guest.mm import page_loss
from harness.guest.mm.libc import PAGE_BYTES
from harness.guest.mm.memory import Memory
from harness.guest.mm.page_model import RXE, DriverRules
from harness.guest.rdma import mlx5
from harness.guest.rdma.nldev import Device, NlDev
from harness.guest.rounds import Connected, ReadCounters, Rounds
from harness.guest.scenarios import SCENARIOS
from harness.values.answer import Answer, DataCheck, Expectation, Leak, Trace
from harness.values.case import Case


def run_case(
    case: Case, tracer: Optional[Any], nldev: NlDev, connected: Optional[Connected] = None
) -> Answer:
    """Run a transfer case; never raises for a failure of the kernel or a fault of the case."""
    problem = page_loss.refusal(case.workload)
    if problem:
        return Answer(case.id, "failed", f"this case makes no sense: {problem}")
    try:
        need = _unmet(case, nldev)
        if need:
            return Answer(case.id, "unsupported", need)
        return _measured(case, tracer if case.trace else None, nldev, connected)
    except Unsupported as error:
        return Answer(case.id, "unsupported", str(error))
    except OSError as error:
        return Answer(case.id, "failed", str(error))


def run_scenario(case: Case, nldev: NlDev, device: Device) -> Answer:
    """Run a scenario; never raises for a failure of the kernel.

    One round runs before objects are counted, unless the scenario is `cold`: a device may keep objects that its first
    round needs. mlx5_ib from Linux 6.12 on makes a CQ and an SRQ of its own.
    Ref: Linux 6.12 drivers/infiniband/hw/mlx5/main.c, mlx5_ib_dev_res_srq_init
    """
    scenario = SCENARIOS[case.workload.operation]
    problem = ""
    times: List[int] = []
    before: Dict[str, int] = {}
    began = time.monotonic_ns()
    try:
        if not scenario.cold:
            scenario.run(_one_round(case), nldev, device)
        before = leaks.count(nldev, _by_name(nldev, device))
        spin(case.seed)
        began = time.monotonic_ns()
        times = scenario.run(case, nldev, device)
    except Unsupported as error:
        return Answer(case.id, "unsupported", str(error))
    except (OSError, WorkFailed) as error:
        problem = str(error)
    except Exception as error:  # pyverbs has exceptions of its own for each call
        problem = f"{type(error).__name__}: {error}"
    gc.collect()
    left = leaks.settle(nldev, _by_name(nldev, mlx5.find(nldev) or device), before) if before else ()
    return Answer(
        case.id,
        "failed" if problem else "done",
        problem,
        leaks=left,
        operations_ns=tuple(times),
        elapsed_ns=time.monotonic_ns() - began,
    )


def _one_round(case: Case) -> Case:
    return replace(case, workload=replace(case.workload, rounds=1, seconds=0))


def _by_name(nldev: NlDev, device: Device) -> Optional[Device]:
    """Look the device up again, since its index may have changed; None if it is gone."""
    return next((now for now in nldev.devices() if now.name == device.name), None)


def spin(turns: int) -> None:
    """Count down from `turns`: shifts the start of what follows by some instructions each."""
    while turns:
        turns -= 1
    os.sched_yield()


def _unmet(case: Case, nldev: NlDev) -> str:
    from harness.guest.rdma.connection import odp_problem

    try:
        nldev.device(case.device)
    except LookupError as error:
        return str(error)
    if case.workload.local.odp or case.workload.remote.odp:
        problem = odp_problem(case.device, case.workload.operation)
        if problem:
            return problem
    if case.workload.loss.method in ("pageout", "reclaim") and not _has_swap():
        return "no swap to page out to"
    return ""


def _has_swap() -> bool:
    return len(Path("/proc/swaps").read_text().splitlines()) > 1


def _measured(case: Case, tracer: Optional[Any], nldev: NlDev, connected: Optional[Connected]) -> Answer:
    from harness.guest.rdma.connection import VERBS_ERRORS

    device = nldev.device(case.device)
    before = leaks.count(nldev, device)
    began = time.monotonic_ns()
    stack = ExitStack()
    try:
        try:
            rounds = Rounds(
                case, rules_of(case, tracer), _counter_reader(tracer, nldev, device), stack, connected
            )
        except VERBS_ERRORS as error:
            not_closed = _close(stack)
            left = leaks.settle(nldev, device, before)
            return Answer(case.id, "failed", f"setup: {error}; {not_closed}".strip("; "), leaks=left)
        spin(case.seed)
        if tracer is not None:
            tracer.start(*(_range(memory) for memory in rounds.memories))
        problem = rounds.run()
        trace = Trace() if tracer is None else tracer.stop(began)
    finally:
        not_closed = _close(stack)
    problem = problem or not_closed
    left = leaks.settle(nldev, device, before) + rounds.frames.leaked()
    return _answer(case, rounds, trace, tracer, left, problem, time.monotonic_ns() - began)


def _close(stack: ExitStack) -> str:
    """Release everything, in reverse order; return what could not be, or nothing."""
    from harness.guest.rdma.connection import VERBS_ERRORS

    try:
        stack.close()
    except VERBS_ERRORS as error:
        return f"cleanup: {error}"
    return ""


def rules_of(case: Case, tracer: Optional[Any]) -> DriverRules:
    """Return the rules by which this device's driver requests pages; any will do without a trace."""
    if tracer is None:
        return RXE
    driver = tracer.driver.name
    rules = expectations.DRIVER_RULES.get((driver, case.scheme))
    if rules is None:
        raise Unsupported(f"no expected counts for {driver} with the page-fault scheme {case.scheme!r}")
    return rules


def _counter_reader(tracer: Optional[Any], nldev: NlDev, device: Device) -> ReadCounters:
    """Return what reads a region's counters; rxe has none, and asking it would cost exact time."""
    if tracer is None or tracer.driver.name == "rxe":
        return lambda lkey: {}
    return lambda lkey: nldev.mr_counters(device, nldev.mr_number(device, lkey))


def _answer(
    case: Case,
    rounds: Rounds,
    trace: Trace,
    tracer: Optional[Any],
    left: Tuple[Leak, ...],
    problem: str,
    elapsed_ns: int,
) -> Answer:
    notes = ["not traced: no count was checked"]
    compared: Tuple[Expectation, ...] = ()
    if tracer is not None:
        notes = expectations.notes(tracer.driver.name, tracer.missing, rounds.models, rounds.counters)
        if not problem:
            text = f"{rounds.workload.rounds} rounds of {rounds.method.text}; {rounds.pattern.text}"
            compared = expectations.of_trace(rounds.models, trace.counts, tracer.sources, text)
            compared += expectations.of_counters(rounds.models, rounds.counters)
    return Answer(
        case.id,
        "failed" if problem else "done",
        problem,
        compared,
        DataCheck(rounds.checked, rounds.wrong, rounds.first),
        trace,
        left,
        tuple(rounds.operations_ns),
        elapsed_ns,
        tuple(notes),
    )


def _range(memory: Memory) -> Tuple[int, int]:
    return memory.pages_start, memory.pages_start + memory.pages * PAGE_BYTES
