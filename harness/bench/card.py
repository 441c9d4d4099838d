"""Measure the emulated card, and which metrics repeat exactly when its replies are inside the guest's writes.

Measured: reading layouts, commands of the model, accesses over the socket, from a snapshot to a verbs device.
"""

from __future__ import annotations

import dataclasses
import itertools
import os
import socket
import statistics
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.agent import checked
from harness.bench.measurement import Measurement
from harness.connectx.conversation.log import entries
from harness.connectx.conversation.replay import (
    load,
    play,
    remap,
)
from harness.connectx.firmware import Card
from harness.connectx.transport.client import Client
from harness.connectx.transport.interrupts import EventInterrupts
from harness.connectx.transport.loop import Loop
from harness.connectx.transport.memory import Memory
from harness.connectx.transport.pci import (
    ConfigSpace,
    PciIdentity,
)
from harness.connectx.transport.server import Server
from harness.connectx.transport.vfio_user import Answers
from harness.device import Device
from harness.device.catalogue import find
from harness.errors import SetupError
from harness.kernel.packages import Kernel
from harness.machine.snapshot import Snapshot
from harness.plan.session import CASE, Session
from harness.values.answer import Answer, Reply
from harness.values.case import Case, Region, Request, Workload
from harness.wire import ifc
from harness.wire.ifc import Layouts

TIMEOUT_S = 300.0
ROUNDS = 25
REPEATS = 3
_DOORBELL = 0x18  # the command doorbell. Ref: Linux 7.2 include/linux/mlx5/device.h, struct mlx5_init_seg


def percentile(values: Sequence[float], percent: float) -> float:
    """Return the value that `percent` of the values do not exceed."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * percent / 100))]


class _Silent:
    def fire(self, vector: int) -> None:
        """Drop the interrupt."""


def command_times(
    conversation: Path, layouts: Layouts, model: str, rounds: int = 5
) -> dict[str, list[float]]:
    """Return microseconds of each command of a recorded driver, from doorbell to completion event, by opcode.

    `conversation` is a conversation log of that model with a kernel of those layouts. Interrupts are dropped.
    """
    lines = list(entries(conversation))
    times: dict[str, list[float]] = defaultdict(list)
    for _ in range(rounds):
        commands: list[str] = []

        def note(entry: dict[str, Any], commands: list[str] = commands) -> None:
            if entry.get("what") == "command":
                commands.append(entry["op"])

        memory = Memory()
        card = Card(model, layouts, memory, _Silent(), note)
        for entry in lines:
            if entry["k"] in ("map", "unmap"):
                remap(memory, entry)
            elif entry["k"] in ("read", "write", "tick", "reset"):
                load(memory, entry)
                commands.clear()
                began_ns = time.perf_counter_ns()
                play(card, entry)
                spent_us = (time.perf_counter_ns() - began_ns) / 1000
                if len(commands) == 1 and entry["k"] == "write" and entry["o"] == _DOORBELL:
                    times[commands[0]].append(spent_us)
    return times


def summary(times: dict[str, list[float]]) -> dict[str, Any]:
    """Return `command_p50_us`, `command_p99_us` over all, and the same for each opcode."""
    everything = [value for values in times.values() for value in values]
    return {
        "command_count": len(everything),
        "command_p50_us": round(percentile(everything, 50), 1),
        "command_p99_us": round(percentile(everything, 99), 1),
        "opcodes": {
            name: {"p50_us": round(percentile(some, 50), 1), "p99_us": round(percentile(some, 99), 1)}
            for name, some in sorted(times.items())
        },
    }


def access_times(layouts: Layouts, model: str, count: int = 2000) -> dict[str, float]:
    """Return round trips to a card in another process: `bar_read_p50_us`, `config_read_p50_us`, and the p99s."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    child = os.fork()
    if child == 0:
        try:
            theirs.close()
            _serve(ours, layouts, model)
        finally:
            os._exit(0)
    ours.close()
    client = Client(theirs)
    try:
        client.hello()
        times: dict[str, float] = {}
        for name, region, offset in (("bar_read", 0, 0x1FC), ("config_read", 7, 0)):
            spent = []
            for _ in range(count):
                began_ns = time.perf_counter_ns()
                client.read(region, offset, 4)
                spent.append((time.perf_counter_ns() - began_ns) / 1000)
            times[f"{name}_p50_us"] = round(percentile(spent, 50), 1)
            times[f"{name}_p99_us"] = round(percentile(spent, 99), 1)
    finally:
        client.close()
        os.waitpid(child, 0)
    return times


def _serve(connection: socket.socket, layouts: Layouts, model: str) -> None:
    """Serve the card until the client disconnects."""
    memory, interrupts, loop = Memory(), EventInterrupts(16), Loop()
    card = Card(model, layouts, memory, interrupts, lambda _entry: None)
    answers = Answers(card, ConfigSpace(PciIdentity()), memory, interrupts, lambda _kind, _details: None)
    server = Server(answers, loop)
    server.attach(connection)
    while server.attached:
        loop.once(None)


@dataclass(frozen=True)
class CardTimes(Measurement):
    """Medians of `restores` restores and 5 loads; `commands` of `summary`, `accesses` of `access_times`.

    `restore_to_verbs_s` is from the start of the restore until the agent has opened the verbs device and queried
    for its capabilities; `restore_parts_s` are its parts. `repeats` has, by operation and clock, the guest's times of
    its rounds after each of REPEATS restores, and which of them were all equal.
    """

    kernel: str
    device: str
    restores: int
    layouts_cold_ms: float
    layouts_cached_ms: float
    restore_to_verbs_s: float
    restore_parts_s: dict[str, float]
    commands: dict[str, Any]
    accesses: dict[str, float]
    repeats: dict[str, Any]

    def plain(self) -> dict[str, object]:
        """Return JSON values for --json: commands and accesses at the top."""
        rest = {
            name: value for name, value in super().plain().items() if name not in ("commands", "accesses")
        }
        return {**rest, **self.accesses, **self.commands}


def measure(
    session: Session, series: str = "newest", model: str = "connectx-5", restores: int = 5
) -> CardTimes:
    """Measure everything on one kernel and one model."""
    device, kernel = find(model), session.kernel(series)
    if not device.plugged:
        raise SetupError(f"{model} is no emulated card")
    headers = kernel.headers / "include"
    with session.ledger.scratch_folder("layouts") as folder:
        cold_ms, cached_ms = layout_times(headers, folder)
    _, snapshot = session.prepared(series, model, "real")
    parts: dict[str, list[float]] = defaultdict(list)
    for number in range(restores):
        session.say(f"restore {number + 1} of {restores}")
        _restore(session, snapshot, kernel, device, Request(CASE, "capabilities", model), parts)
    repeats, conversation = _repeats(session, series, kernel, device)
    layouts = ifc.load(headers)
    session.say("commands, without a machine")
    with session.ledger.scratch_folder("conversation") as folder:
        path = folder / "log.gz"
        path.write_bytes(conversation)
        commands = summary(command_times(path, layouts, model))
    return CardTimes(
        kernel.release,
        model,
        restores,
        cold_ms,
        cached_ms,
        round(statistics.median(map(sum, zip(*parts.values(), strict=True))), 3),
        {name: round(statistics.median(values), 3) for name, values in parts.items()},
        commands,
        access_times(layouts, model),
        repeats,
    )


def layout_times(headers: Path, folder: Path, rounds: int = 5) -> tuple[float, float]:
    """Return milliseconds to read a kernel's layouts from its headers, and from the cache."""

    def timed(read: Callable[[], object]) -> float:
        began_ns = time.perf_counter_ns()
        read()
        return (time.perf_counter_ns() - began_ns) / 1e6

    cold = [timed(lambda: ifc.load(headers)) for _ in range(rounds)]
    ifc.load(headers, folder)
    cached = [timed(lambda: ifc.load(headers, folder)) for _ in range(rounds)]
    return round(statistics.median(cold), 1), round(statistics.median(cached), 1)


def _restore(
    session: Session,
    snapshot: Snapshot,
    kernel: Kernel,
    device: Device,
    request: Request,
    parts: dict[str, list[float]],
) -> tuple[Reply, bytes]:
    """Restore once with the card: add seconds to `parts`; return the reply and the conversation."""
    laps = [time.monotonic()]
    with session.ledger.scratch_folder("bench") as folder:
        with (
            device.around(session.host, kernel, folder) as presence,
            session.machines.restore(snapshot, request, folder, plugged=True) as machine,
        ):
            laps.append(time.monotonic())
            presence.plug(machine)
            laps.append(time.monotonic())
            reply = machine.wait(TIMEOUT_S, presence.check)
            laps.append(time.monotonic())
        conversation = (folder / device.log).read_bytes()
    checked(reply)
    names = ("copy_and_start", "incoming_and_plug", "driver_and_verbs")
    for name, (began, ended) in zip(names, itertools.pairwise(laps), strict=True):
        parts[name].append(ended - began)
    return reply, conversation


def _repeats(session: Session, series: str, kernel: Kernel, device: Device) -> tuple[dict[str, Any], bytes]:
    """Return guest times of the same work after REPEATS restores in exact time, and one conversation of it."""
    region = Region(4 * 4096)
    _, exact = session.prepared(series, device.name, "exact")
    repeats: dict[str, Any] = {}
    conversation = b""
    for clock, operation in itertools.product(("exact", "icount"), ("write", "objects")):
        snapshot = dataclasses.replace(exact, shape=dataclasses.replace(exact.shape, clock=clock))
        work = Workload(operation, ROUNDS, region, region)
        case = Case("bench-card", device.name, work, scheme=device.scheme(kernel))
        request = Request(CASE, "case", device.name, case)
        answers = []
        for number in range(REPEATS):
            session.say(f"{operation} in {clock} time: restore {number + 1} of {REPEATS}")
            reply, conversation = _restore(session, snapshot, kernel, device, request, defaultdict(list))
            if reply.answer is None or reply.answer.status != "done":
                raise SetupError("the work failed", [reply.answer.problem if reply.answer else reply.problem])
            answers.append(reply.answer)
        repeats[f"{operation}_{clock}"] = _compared(answers)
    return repeats, conversation


def _compared(answers: Sequence[Answer]) -> dict[str, Any]:
    """Return each metric after each restore, in guest ns, and the names of those that were always equal."""
    metrics: dict[str, list[float]] = {}
    for name, percent in (("round_min", 0), ("round_p10", 10), ("round_p50", 50), ("round_max", 100)):
        metrics[f"{name}_ns"] = [percentile(answer.operations_ns, percent) for answer in answers]
    metrics["elapsed_ns"] = [answer.elapsed_ns for answer in answers]
    return {**metrics, "exact": [name for name, values in metrics.items() if len(set(values)) == 1]}
