"""Replay a conversation log against a device model, without a VM, and compare what the model does."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from harness.connectx.conversation.log import (
    Entry,
    Recorder,
    RecordingInterrupts,
    RecordingMemory,
    Sink,
    entries,
)
from harness.connectx.transport.memory import (
    Memory,
    anonymous,
)
from harness.connectx.transport.vfio_user import Device

Build = Callable[[RecordingMemory, RecordingInterrupts, Sink], Device]
Pairs = Sequence[Sequence[Any]]
_COMPARED = ("g", "did", "irq")
_ACCESSES = ("read", "write", "tick", "reset", "detach")


@dataclass(frozen=True, slots=True)
class Difference:
    """A line of the log at which the model read, wrote or raised something else."""

    line: int
    what: str
    recorded: object
    replayed: object
    entry: Entry

    def __str__(self) -> str:
        access = {name: self.entry[name] for name in ("k", "b", "o", "n", "d") if name in self.entry}
        return f"line {self.line} {access}: {self.what}: recorded {self.recorded}, now {self.replayed}"


@dataclass(slots=True)
class Outcome:
    """Result of a replay: accesses played, where they differ, the model's notes."""

    accesses: int = 0
    differences: list[Difference] = field(default_factory=list)
    notes: list[Entry] = field(default_factory=list)


def load(memory: Memory, entry: Entry) -> None:
    """Write to memory what the recorded card saw for the first time in this access."""
    for address, text in entry.get("saw", ()):
        memory.overwrite(address, bytes.fromhex(text))


def remap(memory: Memory, entry: Entry) -> None:
    """Follow a map or unmap line, with memory of this process instead of the guest's."""
    if entry["k"] == "unmap":
        memory.revoke(entry["a"], entry["n"])
    elif entry["shared"]:
        memory.lend(entry["a"], anonymous(entry["n"]), entry["f"])


class _Silent:
    def fire(self, vector: int) -> None:
        """Ignore it."""


class _ReplayMemory(RecordingMemory):
    """Memory with the contents of a log.

    Copies within guest memory are not in the log and are not done again: where the card looks at such bytes later,
    the log has them.
    """

    def copy(self, source: int, destination: int, size: int) -> None:
        """Do nothing."""


def replay(path: Path, build: Build) -> Outcome:
    """Feed the accesses of a log to the device that `build` makes, with the guest memory they saw.

    `build` gets the memory, the interrupts and a sink for the device's notes; a device with a `clock` gets
    the recorded one. An exception of the device counts as a difference.
    """
    outcome = Outcome()
    played: list[Entry] = []
    time_us = 0

    def sink(entry: Entry) -> None:
        (played if entry["k"] in _ACCESSES else outcome.notes).append(entry)

    memory = _ReplayMemory(sink)
    interrupts = RecordingInterrupts(_Silent())
    device = Recorder(build(memory, interrupts, sink), memory, interrupts, sink, lambda: time_us)
    for number, entry in enumerate(entries(path), 1):
        time_us = entry.get("t", time_us)
        if entry["k"] in ("map", "unmap"):
            remap(memory, entry)
        elif entry["k"] in _ACCESSES:
            outcome.accesses += 1
            load(memory, entry)
            played.clear()
            try:
                play(device, entry)
            except Exception as problem:
                outcome.differences.append(Difference(number, "exception", None, repr(problem), entry))
            outcome.differences += _compare(number, entry, played)
    return outcome


def play(device: Device, entry: Entry) -> None:
    """Play one access."""
    kind = entry["k"]
    if kind == "read":
        device.bar_read(entry["b"], entry["o"], entry["n"])
    elif kind == "write":
        device.bar_write(entry["b"], entry["o"], bytes.fromhex(entry["d"]))
    else:
        getattr(device, kind)()


def _compare(number: int, entry: Entry, played: list[Entry]) -> list[Difference]:
    now = played[-1] if played else {}
    differences = []
    for what in _COMPARED:
        recorded, replayed = entry.get(what), now.get(what)
        if what == "did" and recorded != replayed:
            recorded, replayed = _only_in(recorded, replayed), _only_in(replayed, recorded)
        if recorded != replayed:
            differences.append(Difference(number, what, recorded, replayed, entry))
    return differences


def _only_in(these: Pairs | None, others: Pairs | None) -> list[tuple[str, str]]:
    """Return the bytes that `these` leave in memory and `others` do not, as runs of (hex address, hex)."""
    bytes_here, bytes_there = _by_byte(these), _by_byte(others)
    runs: list[tuple[int, list[int]]] = []
    for address in sorted(bytes_here):
        byte = bytes_here[address]
        if bytes_there.get(address) == byte:
            continue
        if runs and runs[-1][0] + len(runs[-1][1]) == address:
            runs[-1][1].append(byte)
        else:
            runs.append((address, [byte]))
    return [(hex(address), bytes(run).hex()) for address, run in runs]


def _by_byte(pairs: Pairs | None) -> dict[int, int]:
    return {
        address + index: byte
        for address, text in pairs or ()
        for index, byte in enumerate(bytes.fromhex(text))
    }
