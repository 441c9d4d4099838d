"""Measure the CPU cost of a work request and of a page fault on the emulated card and on soft-RoCE, by process."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from harness.bench.measurement import Measurement
from harness.connectx import firmware
from harness.connectx.conversation.log import entries
from harness.connectx.conversation.replay import (
    load,
    play,
    remap,
)
from harness.connectx.transport.memory import Memory
from harness.device.card_process import Card
from harness.device.catalogue import find
from harness.errors import SetupError
from harness.plan.session import CASE, Session
from harness.values.answer import Answer
from harness.values.case import Case, PageLoss, Region, Request, Workload
from harness.wire import ifc
from harness.wire.ifc import Layouts

SIZES = (64, 64 << 10)
TIMEOUT_S = 300.0
MTU = 4096
PAGE = 4096
VCPU = "CPU "
"""Name prefix of QEMU's threads that run the guest. Ref: QEMU 11.1 accel/tcg/tcg-accel-ops-mttcg.c"""

PARTS = ("model", "card", "qemu", "guest")
REPLAYS = 3


@dataclass(frozen=True)
class Cost:
    """RDMA writes of `size_bytes`, one at a time, to a page that is present (`wqe`) and to an absent one (`fault`).

    `..._per_s` is by the guest's clock, of the median round. The rest is CPU time in us of a round: the difference of a
    long and a short run over that of their rounds. `model` is the card's model itself, measured by replaying the
    conversation (minimum of REPLAYS); `card` the rest of its process (socket, log); `qemu` QEMU's threads without
    vCPUs; `guest` the vCPUs, with the workload's own filling and comparing of memory. A round is everything that the
    driver sends for one write: doorbells, arming of queues, when faulting also the invalidation before.
    `model_us_per_fault` is the model's cost of a faulting round beyond one that does not fault, over `faults` (events
    of the card; on soft-RoCE one per page).
    """

    size_bytes: int
    wqe_per_s: float
    faults_per_s: float
    faults: float
    model_us_per_wqe: float
    model_us_per_fault: float
    wqe_us: dict[str, float]
    fault_us: dict[str, float]
    shares: dict[str, float]


@dataclass(frozen=True)
class FaultTimes(Measurement):
    """The costs of both devices, by device and size."""

    kernel: str
    device: str
    rounds: int
    costs: dict[str, tuple[Cost, ...]]

    def plain(self) -> dict[str, object]:
        """Return JSON values for --json: those of the card at the smallest size at the top."""
        first = self.costs[self.device][0]
        names = ("faults_per_s", "wqe_per_s", "model_us_per_wqe", "model_us_per_fault")
        return {**{name: getattr(first, name) for name in names}, **super().plain()}


@dataclass(frozen=True)
class _Run:
    """One machine: its answer, CPU time in ns by part, page faults raised by the card."""

    answer: Answer
    spent_ns: dict[str, int]
    raised: int


def measure(session: Session, series: str, model: str, rounds: int = 400) -> FaultTimes:
    """Measure both devices, eight machines each. `rounds` of a long run; a short one has an eighth."""
    if not find(model).plugged:
        raise SetupError(f"{model} is no emulated card")
    costs = {
        name: tuple(_cost(session, series, name, size, rounds) for size in SIZES)
        for name in (model, "soft-roce")
    }
    return FaultTimes(session.kernel(series).release, model, rounds, costs)


def _cost(session: Session, series: str, device: str, size: int, rounds: int) -> Cost:
    long_rounds, short_rounds = rounds, max(rounds // 8, 1)
    spent: dict[str, dict[str, float]] = {}
    rate: dict[str, float] = {}
    faults = 0.0
    for method in ("none", "dontneed"):
        session.say(f"{device}: writes of {size} bytes, page-loss method: {method}")
        short, long = (
            _run(session, series, device, size, method, count) for count in (short_rounds, long_rounds)
        )
        spent[method] = {
            part: round((long.spent_ns[part] - short.spent_ns[part]) / 1000 / (long_rounds - short_rounds), 1)
            for part in PARTS
        }
        rate[method] = 1e9 / statistics.median(long.answer.operations_ns)
        faults = (long.raised - short.raised) / (long_rounds - short_rounds)
    if not find(device).plugged:
        faults = -(-size // PAGE)
    total = sum(spent["dontneed"].values())
    return Cost(
        size,
        round(rate["none"]),
        round(rate["dontneed"] * faults),
        round(faults, 2),
        spent["none"]["model"],
        round((spent["dontneed"]["model"] - spent["none"]["model"]) / faults, 1),
        spent["none"],
        spent["dontneed"],
        {part: round(spent["dontneed"][part] / total, 3) for part in PARTS},
    )


def _run(session: Session, series: str, name: str, size: int, method: str, rounds: int) -> _Run:
    device = find(name)
    kernel, snapshot = session.prepared(series, name, "real")
    region = Region(size)
    work = Workload("write", rounds, region, region, PageLoss(method, "remote"), MTU)
    request = Request(CASE, "case", name, Case("bench-faults", name, work, trace=False))
    spent, raised = dict.fromkeys(PARTS, 0), 0
    with session.ledger.scratch_folder("bench") as folder:
        with (
            device.around(session.host, kernel, folder) as presence,
            session.machines.restore(snapshot, request, folder, plugged=device.plugged) as machine,
        ):
            presence.plug(machine)
            reply = machine.wait(TIMEOUT_S, presence.check)
            spent["guest"] = threads_ns(machine.process.pid, lambda name: name.startswith(VCPU))
            spent["qemu"] = threads_ns(machine.process.pid, lambda name: not name.startswith(VCPU))
            if isinstance(presence, Card):
                raised = presence.report().counters["faults.raised"]
                spent["card"] = threads_ns(presence.process.pid, lambda name: True)
        if device.log:
            layouts = ifc.load(kernel.headers / "include")
            spent["model"] = min(replay_ns(folder / device.log, layouts, name) for _ in range(REPLAYS))
            spent["card"] -= spent["model"]
    answer = reply.answer
    if answer is None or answer.status != "done":
        raise SetupError("the work failed", [answer.problem if answer else reply.problem])
    return _Run(answer, spent, raised)


class _Silent:
    def fire(self, vector: int) -> None:
        """Drop the interrupt."""


def replay_ns(conversation: Path, layouts: Layouts, model: str) -> int:
    """Return the CPU time of a model that replays a recorded conversation, without socket and log."""
    memory = Memory()
    card = firmware.Card(model, layouts, memory, _Silent(), lambda _entry: None)
    spent_ns = 0
    for entry in entries(conversation):
        if entry["k"] in ("map", "unmap"):
            remap(memory, entry)
        elif entry["k"] in ("read", "write", "tick", "reset"):
            load(memory, entry)
            began_ns = time.process_time_ns()
            play(card, entry)
            spent_ns += time.process_time_ns() - began_ns
    return spent_ns


def threads_ns(pid: int, matches: Callable[[str], bool]) -> int:
    """Return the CPU time of a process's threads whose name `matches`.

    Ref: Linux Documentation/scheduler/sched-stats.rst, /proc/PID/schedstat
    """
    total = 0
    for task in Path(f"/proc/{pid}/task").iterdir():
        if matches((task / "comm").read_text()):
            total += int((task / "schedstat").read_text().split()[0])
    return total
