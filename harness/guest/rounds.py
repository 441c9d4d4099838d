"""The rounds of a transfer case: make pages absent, transfer, compare the bytes, keep the models up to date."""

from __future__ import annotations

import platform
import time
from contextlib import ExitStack
from typing import Any, Callable, Dict, List, Optional, Tuple

from harness.guest.errors import WorkFailed
from harness.guest.expectations import SIDES
from harness.guest.mm import page_loss
from harness.guest.mm.cow_child import CowChild
from harness.guest.mm.libc import MADV_DONTFORK
from harness.guest.mm.memory import Memory
from harness.guest.mm.page_model import DriverRules, PageModel, unmap_invalidations
from harness.guest.mm.pagemap import Frames
from harness.guest.rdma import pg_access
from harness.guest.rdma import registration as registrations
from harness.guest.rdma.workloads import PATTERNS, Side
from harness.values.case import Case

ReadCounters = Callable[[int], Dict[str, int]]
"""Return the driver's own counters of the region with this lkey."""
Connected = Callable[[Any, List[Side]], None]
"""Called with the connection and both sides before the first round."""


class Rounds:
    """The rounds of one case, and all objects that they need; `stack` releases those.

    The driver's counters of a region end with its registration, so they are read at each deregistration and summed
    in `counters`, a table a side.
    """

    def __init__(
        self,
        case: Case,
        rules: DriverRules,
        read_counters: ReadCounters,
        stack: ExitStack,
        connected: Optional[Connected],
    ) -> None:
        from harness.guest.rdma.connection import Connection

        self.case = case
        self.workload = case.workload
        self.pattern = PATTERNS[self.workload.operation]
        self.method = page_loss.METHODS[self.workload.loss.method]
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
        self._read_counters = read_counters
        self._connected = connected
        self.counters: Tuple[Dict[str, int], ...] = ({}, {})
        self.sides: List[Side] = []
        if self.method.setup is not None:
            self.method.setup(stack)
        for tag, region in enumerate((self.workload.local, self.workload.remote)):
            memory = Memory(region, tag + 1)
            stack.callback(memory.close)
            self.memories.append(memory)
            invalidations = unmap_invalidations(region.mapping, platform.release())
            self.models.append(PageModel(region, rules, invalidations))
        self.affected = [page_loss.applies(self.workload, side) for side in SIDES]
        self.frames = Frames()
        self.operations_ns: List[int] = []
        self.checked = 0
        self.wrong = 0
        self.first = ""

    def run(self) -> str:
        """Register and run all rounds; return what ended them early, or nothing."""
        from harness.guest.rdma.connection import VERBS_ERRORS

        try:
            self._register_both()
            if self._connected is not None:
                self._connected(self.connection, self.sides)
            for number in range(1, self.workload.rounds + 1):
                self._round(number)
        except (WorkFailed, *VERBS_ERRORS) as error:
            return f"round {len(self.operations_ns) + 1} of {self.workload.rounds}: {error}"
        return ""

    def _register_both(self) -> None:
        self._stack.callback(self._deregister_all)
        for memory, model, affected in zip(self.memories, self.models, self.affected):
            memory.fill(0)
            model.write_all()
            if self.workload.loss.method == "fork" and not affected:
                memory.advise_all(MADV_DONTFORK)
            self.sides.append(Side(memory, model, self._register(memory)))
            model.register()

    def _round(self, number: int) -> None:
        for memory, model in zip(self.memories, self.models):
            memory.fill(number)
            model.write_all()
        child = self._make_absent()
        try:
            local, remote = self.sides
            posts = self.pattern.prepare(self.connection, local, remote)
            began = time.monotonic_ns()
            for post in posts:
                post()
            self.operations_ns.append(time.monotonic_ns() - began)
            self.pattern.touches(local.model, remote.model, self.workload.mtu_bytes)
            self.pattern.moves(local.memory, remote.memory)
            self._check(number)
        finally:
            if child is not None:
                self._dismiss(child, number)

    def _make_absent(self) -> Optional[CowChild]:
        indices = [index for index, affected in enumerate(self.affected) if affected]
        forks = self.workload.loss.method == "fork"
        child = CowChild([self.memories[i] for i in indices]) if forks else None
        for index in indices:
            if self.method.fresh:
                self._renew(index)
                continue
            self.method.act(self.memories[index])
            self.method.model(self.models[index])
        return child

    def _renew(self, index: int) -> None:
        memory, model, _ = self.sides[index]
        self._deregister(index)
        model.deregister()
        memory.remap()
        model.unmap_all()
        self.method.act(memory)
        self.method.model(model)
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
        for name, value in self._read_counters(registration.lkey).items():
            self.counters[index][name] = self.counters[index].get(name, 0) + value
        if self._remote is not None and index == 1:
            self._remote.deregister(registration)
        else:
            registrations.deregister(self.connection.context.cmd_fd, registration)

    def _deregister_all(self) -> None:
        for index in range(len(self.sides)):
            self._deregister(index)

    def _dismiss(self, child: CowChild, number: int) -> None:
        wrong, first = child.dismiss()
        for model in self.models:
            model.child_gone()
        self.wrong += wrong
        self.first = self.first or (first and f"child, round {number}, {first}")

    def _check(self, number: int) -> None:
        for name, memory, model in zip(SIDES, self.memories, self.models):
            self.frames.record(memory.pages_start, memory.pages)
            self.checked += memory.size
            model.read_all()
            wrong, first = memory.difference()
            self.wrong += wrong
            self.first = self.first or (first and f"{name}, round {number}, {first}")
