"""How long the emulated card takes: commands in the model, accesses over the socket. No VM."""

from __future__ import annotations

import os
import socket
import time
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from harness.connectx.client import Client
from harness.connectx.firmware import Card
from harness.connectx.interrupts import EventInterrupts
from harness.connectx.log import entries
from harness.connectx.loop import Loop
from harness.connectx.memory import Memory
from harness.connectx.pci import ConfigSpace, Face
from harness.connectx.replay import load, play, remap
from harness.connectx.server import Server
from harness.connectx.vfio_user import Answers
from harness.wire.ifc import Layouts

_DOORBELL = 0x18  # the command doorbell. Ref: Linux 7.2 include/linux/mlx5/device.h, struct mlx5_init_seg


def percentile(values: Sequence[float], percent: float) -> float:
    """The value that `percent` of the values do not exceed."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * percent / 100))]


class _Silent:
    def fire(self, vector: int) -> None:
        """Nobody listens."""


def command_times(
    conversation: Path, layouts: Layouts, model: str, rounds: int = 5
) -> dict[str, list[float]]:
    """Microseconds of each command of a recorded driver, from doorbell to completion event, by opcode.

    `conversation` is a conversation log of that model with a kernel of those layouts. Interrupts go nowhere.
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
    """`command_p50_us`, `command_p99_us` over all, and the same for each opcode."""
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
    """Round trips to a card in another process: `bar_read_p50_us`, `config_read_p50_us`, and the p99s."""
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
        found: dict[str, float] = {}
        for name, region, offset in (("bar_read", 0, 0x1FC), ("config_read", 7, 0)):
            spent = []
            for _ in range(count):
                began_ns = time.perf_counter_ns()
                client.read(region, offset, 4)
                spent.append((time.perf_counter_ns() - began_ns) / 1000)
            found[f"{name}_p50_us"] = round(percentile(spent, 50), 1)
            found[f"{name}_p99_us"] = round(percentile(spent, 99), 1)
    finally:
        client.close()
        os.waitpid(child, 0)
    return found


def _serve(connection: socket.socket, layouts: Layouts, model: str) -> None:
    """Be the card until the client hangs up."""
    memory, interrupts, loop = Memory(), EventInterrupts(16), Loop()
    card = Card(model, layouts, memory, interrupts, lambda _entry: None)
    answers = Answers(card, ConfigSpace(Face()), memory, interrupts, lambda _kind, _details: None)
    server = Server(answers, loop)
    server.attach(connection)
    while server.attached:
        loop.once(None)
