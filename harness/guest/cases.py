"""Runs one case: memory, connection, rounds, and from what was seen its answer."""

from __future__ import annotations

import os
import platform
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Callable, Dict, List, Optional, Tuple

from harness.guest import expectations, leaks
from harness.guest.errors import (
    Unsupported,
    WorkFailed,
)
from harness.guest.mm import page_loss
from harness.guest.mm.cow_child import Child
from harness.guest.mm.libc import (
    MADV_DONTFORK,
    PAGE_BYTES,
)
from harness.guest.mm.memory import Memory
from harness.guest.mm.page_model import (
    RXE,
    PageModel,
    Rules,
    unmaps_told,
)
from harness.guest.mm.pagemap import Frames
from harness.guest.rdma import pg_access
from harness.guest.rdma import registration as registrations
from harness.guest.rdma.nldev import (
    Device,
    NlDev,
)
from harness.guest.rdma.workloads import (
    PATTERNS,
    Side,
)
from harness.values.answer import Answer, DataCheck, Expectation, Leak, Trace
from harness.values.case import Case

Counting = Callable[[int], Dict[str, int]]
Connected = Callable[[Any, List[Side]], None]
"""Told of the connection and both sides before the first round."""


class Rounds:
    """The rounds of one case, and all that they need. Made, run, closed.

    `count` gives the driver's own counters of a registration by its lkey; they end with it, so they are read
    and summed (`counters`, a table a side) when it is given back.
    """

    def __init__(
        self, case: Case, rules: Rules, count: Counting, stack: ExitStack, connected: Optional[Connected]
    ) -> None:
        from harness.guest.rdma.connection import Connection

        self.case = case
        self.workload = case.workload
        self.pattern = PATTERNS[self.workload.operation]
        self.loss = page_loss.LOSSES[self.workload.loss.method]
        as_2015 = case.module is not None and case.module.region == "pg_access"
        context = stack.enter_context(pg_access.open_context(case.device)) if as_2015 else None
        self.connection = Connection(
            case.device,
            self.workload.mtu_bytes,
            case.timeout_s,
            context,
            operation=self.workload.operation,
        )
        stack.callback(self.connection.close)
        self._remote = pg_access.Regions(self.connection) if as_2015 else None
        self._stack = stack
        self.memories: List[Memory] = []
        self.models: List[PageModel] = []
        self._count = count
        self._connected = connected
        self.counters: Tuple[Dict[str, int], ...] = ({}, {})
        self.sides: List[Side] = []
        if self.loss.ready is not None:
            self.loss.ready(stack)
        for tag, region in enumerate((self.workload.local, self.workload.remote)):
            memory = Memory(region, tag + 1)
            stack.callback(memory.close)
            self.memories.append(memory)
            told = unmaps_told(region.mapping, platform.release())
            self.models.append(PageModel(region, rules, told))
        self.lost = [page_loss.loses(self.workload, side) for side in expectations.SIDES]
        self.frames = Frames()
        self.operations_ns: List[int] = []
        self.checked = 0
        self.wrong = 0
        self.first = ""

    def run(self) -> str:
        """Register and run all rounds; returns what ended them early, or nothing."""
        from harness.guest.rdma.connection import VERBS_ERRORS

        try:
            self._register_both()
            if self._connected is not None:
                self._connected(self.connection, self.sides)
            for turn in range(1, self.workload.rounds + 1):
                self._round(turn)
        except (WorkFailed, *VERBS_ERRORS) as error:
            return f"round {len(self.operations_ns) + 1} of {self.workload.rounds}: {error}"
        return ""

    def _register_both(self) -> None:
        self._stack.callback(self._deregister_all)
        for memory, model, lost in zip(self.memories, self.models, self.lost):
            memory.fill(0)
            model.write_all()
            if self.workload.loss.method == "fork" and not lost:
                memory.advise_all(MADV_DONTFORK)
            self.sides.append(Side(memory, model, self._register(memory)))
            model.register()

    def _round(self, turn: int) -> None:
        for memory, model in zip(self.memories, self.models):
            memory.fill(turn)
            model.write_all()
        child = self._lose()
        try:
            local, remote = self.sides
            posts = self.pattern.prepare(self.connection, local, remote)
            began = time.monotonic_ns()
            for post in posts:
                post()
            self.operations_ns.append(time.monotonic_ns() - began)
            self.pattern.touches(local.model, remote.model, self.workload.mtu_bytes)
            self.pattern.moves(local.memory, remote.memory)
            self._check(turn)
        finally:
            if child is not None:
                self._take_leave(child, turn)

    def _lose(self) -> Optional[Child]:
        how = self.workload.loss.method
        victims = [index for index, lost in enumerate(self.lost) if lost]
        child = Child([self.memories[i] for i in victims]) if how == "fork" else None
        for index in victims:
            if self.loss.fresh:
                self._renew(index)
                continue
            self.loss.act(self.memories[index])
            self.loss.law(self.models[index])
        return child

    def _renew(self, index: int) -> None:
        memory, model, _ = self.sides[index]
        self._deregister(index)
        model.deregister()
        memory.remap()
        model.drop()
        self.loss.act(memory)
        self.loss.law(model)
        self.sides[index] = Side(memory, model, self._register(memory))
        model.register()

    def _register(self, memory: Memory) -> registrations.Registration:
        region = memory.region
        if self._remote is not None and memory is self.memories[1]:
            return self._remote.register(memory)
        fd, pd = self.connection.context.cmd_fd, self.connection.pd.handle
        try:
            access = registrations.access_for(self.workload.operation)
            return registrations.register_region(fd, pd, region, memory.start, access, region.odp)
        except OSError as error:
            raise WorkFailed(f"registering {region.length} bytes, iova {region.iova}: {error}") from error

    def _deregister(self, index: int) -> None:
        registration = self.sides[index].registration
        for name, value in self._count(registration.lkey).items():
            self.counters[index][name] = self.counters[index].get(name, 0) + value
        if self._remote is not None and index == 1:
            self._remote.deregister(registration)
        else:
            registrations.deregister(self.connection.context.cmd_fd, registration)

    def _deregister_all(self) -> None:
        for index in range(len(self.sides)):
            self._deregister(index)

    def _take_leave(self, child: Child, turn: int) -> None:
        wrong, first = child.dismiss()
        for model in self.models:
            model.child_gone()
        self.wrong += wrong
        self.first = self.first or (first and f"child, round {turn}, {first}")

    def _check(self, turn: int) -> None:
        for name, memory, model in zip(expectations.SIDES, self.memories, self.models):
            self.frames.note(memory.pages_start, memory.pages)
            self.checked += memory.size
            model.read_all()
            wrong, first = memory.difference()
            self.wrong += wrong
            self.first = self.first or (first and f"{name}, round {turn}, {first}")


def run_case(
    case: Case, tracer: Optional[Any], nldev: NlDev, connected: Optional[Connected] = None
) -> Answer:
    """Run a case and answer it; never raises for what the kernel or the case did wrong."""
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


def _close(stack: ExitStack) -> str:
    """Give everything back, in reverse order; returns what could not be, or nothing."""
    from harness.guest.rdma.connection import VERBS_ERRORS

    try:
        stack.close()
    except VERBS_ERRORS as error:
        return f"giving back: {error}"
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
            rounds = Rounds(case, rules_of(case, tracer), _counting(tracer, nldev, device), stack, connected)
        except VERBS_ERRORS as error:
            not_closed = _close(stack)
            left = leaks.settle(nldev, device, before)
            return Answer(case.id, "failed", f"getting ready: {error}; {not_closed}".strip("; "), leaks=left)
        spin(case.seed)
        if tracer is not None:
            tracer.start(*(_range(memory) for memory in rounds.memories))
        problem = rounds.run()
        trace = Trace() if tracer is None else tracer.stop(began)
    finally:
        not_closed = _close(stack)
    problem = problem or not_closed
    left = leaks.settle(nldev, device, before) + rounds.frames.left()
    return _answer(case, rounds, trace, tracer, left, problem, time.monotonic_ns() - began)


def rules_of(case: Case, tracer: Optional[Any]) -> Rules:
    """The rules by which this device's driver asks for pages; nobody looks at them without a trace."""
    if tracer is None:
        return RXE
    driver = tracer.driver.name
    rules = expectations.RULES.get((driver, case.scheme))
    if rules is None:
        raise Unsupported(f"no laws for {driver} with a card whose scheme of page faults is {case.scheme!r}")
    return rules


def _counting(tracer: Optional[Any], nldev: NlDev, device: Device) -> Counting:
    """rxe has no counters, and asking it would cost time that is exact."""
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
    notes = ["not traced: no law was checked"]
    held: Tuple[Expectation, ...] = ()
    if tracer is not None:
        notes = expectations.notes(tracer.driver.name, tracer.missing, rounds.models, rounds.counters)
        if not problem:
            text = f"{rounds.workload.rounds} rounds of {rounds.loss.text}; {rounds.pattern.text}"
            held = expectations.of_trace(rounds.models, trace.counts, tracer.sources, text)
            held += expectations.of_counters(rounds.models, rounds.counters)
    return Answer(
        case.id,
        "failed" if problem else "done",
        problem,
        held,
        DataCheck(rounds.checked, rounds.wrong, rounds.first),
        trace,
        left,
        tuple(rounds.operations_ns),
        elapsed_ns,
        tuple(notes),
    )


def _range(memory: Memory) -> Tuple[int, int]:
    return memory.pages_start, memory.pages_start + memory.pages * PAGE_BYTES


def spin(turns: int) -> None:
    """Let so many turns of nothing go by: what follows begins some instructions later."""
    while turns:
        turns -= 1
    os.sched_yield()
