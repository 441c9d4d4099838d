"""Conversation log: every access of a driver to its card, one JSON line each, for replay.

A line is an object with `k`, its kind, and `t`, its start in microseconds of the monotonic clock:

    open                     first line: format, model, whatever the writer adds
    map, unmap               `a` address, `n` bytes, `f` flags (1 read, 2 write), `shared`
    read, write              a BAR access: `b` BAR, `o` offset, `n` bytes read or `d` bytes written (hex)
    tick, reset, detach      timers that did something; a reset; the guest is gone
    note                     a note of the card: commands, events, doorbells, faults

Accesses and ticks have the guest memory that the card read and changed, as pairs of address and hex: `saw`, `did`;
the vectors it raised, in order: `irq`; a BAR read has its result: `g`. Of `saw`, only bytes that differ from what
the log already has are written: so a whole driver probe stays small, and a replay has the same memory under the
card at every step. Bytes that the card only copies within guest memory (the payload of its transfers) are not
written.

Changes through a view are collected when the access ends. A guest that runs meanwhile may have written there, too,
and that passes for the card's: for a log that replays exactly, record with one vCPU and without posted writes.
"""

from __future__ import annotations

import gzip
import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any, Protocol, cast, runtime_checkable

from harness.connectx.device import Interrupts
from harness.connectx.transport.memory import (
    WRITE,
    Map,
    Memory,
    anonymous,
)
from harness.connectx.transport.vfio_user import Device

FORMAT = 1
_LINE = 64
_FLUSH_EVERY = 2000

Entry = dict[str, Any]
Sink = Callable[[Entry], None]


def now_us() -> int:
    """Return the monotonic clock in microseconds."""
    return time.monotonic_ns() // 1000


def _open(path: Path, mode: str) -> IO[str]:
    if path.suffix == ".gz":
        return cast(IO[str], gzip.open(path, mode + "t", compresslevel=1))
    return path.open(mode)


class Writer:
    """Lines into a file, compressed when its name ends in .gz. Call it with an entry."""

    def __init__(self, path: Path, **about: Any) -> None:
        self._file = _open(path, "w")
        self._lines = 0
        self({"k": "open", "format": FORMAT, **about})

    def __call__(self, entry: Entry) -> None:
        """Write one line; the time is filled in when missing."""
        entry.setdefault("t", now_us())
        self._file.write(json.dumps(entry, separators=(",", ":"), default=_plain) + "\n")
        self._lines += 1
        if self._lines % _FLUSH_EVERY == 0:  # a card that is killed leaves a log with an end missing
            self._file.flush()

    def close(self) -> None:
        """Write what is buffered."""
        self._file.close()


def _plain(value: Any) -> Any:
    return bytes(value).hex() if isinstance(value, (bytes, bytearray, memoryview)) else str(value)


def entries(path: Path) -> Iterator[Entry]:
    """Yield the entries of a log; one whose end is missing is read as far as it goes."""
    with _open(path, "r") as file:
        try:
            for line in file:
                yield json.loads(line)
        except (EOFError, json.JSONDecodeError):
            return


def changes(address: int, before: bytes, after: bytes) -> list[tuple[int, str]]:
    """Compare two ranges of equal length: return (address, hex of after) in runs of 64-byte lines, trimmed."""
    runs = []
    at, size = 0, len(after)
    while at < size:
        if before[at : at + _LINE] == after[at : at + _LINE]:
            at += _LINE
            continue
        end = at + _LINE
        while end < size and before[end : end + _LINE] != after[end : end + _LINE]:
            end += _LINE
        end = min(end, size)
        start = at
        while before[start] == after[start]:
            start += 1
        last = end
        while before[last - 1] == after[last - 1]:
            last -= 1
        runs.append((address + start, after[start:last].hex()))
        at = end
    return runs


class RecordingMemory(Memory):
    """Memory that records, per access, the bytes that the card saw and changed.

    A shadow of every map has the bytes that the log has; its untouched pages cost nothing.
    """

    def __init__(self, sink: Sink) -> None:
        super().__init__()
        self._sink = sink
        self._shadows: dict[int, memoryview] = {}
        self._saw: list[tuple[int, str]] = []
        self._did: list[tuple[int, str]] = []
        self._open: list[tuple[int, memoryview, memoryview]] = []

    def _insert(self, granted: Map) -> Map:
        shared = granted.view is not None
        if shared:
            self._shadows[granted.address] = anonymous(granted.size)
        map_line = {"a": granted.address, "n": granted.size, "f": granted.flags, "shared": shared}
        self._sink({"k": "map", **map_line})
        return super()._insert(granted)

    def revoke(self, address: int, size: int) -> int:
        """As Memory, and logged."""
        count = super().revoke(address, size)
        self._open.clear()
        if count:
            left = {granted.address for granted in self.maps}
            self._shadows = {at: shadow for at, shadow in self._shadows.items() if at in left}
            self._sink({"k": "unmap", "a": address, "n": size})
        return count

    def view(self, address: int, size: int) -> memoryview:
        """As Memory. Its bytes are recorded now, changes to them when the access ends."""
        view = super().view(address, size)
        self._record(address, view)
        return view

    def _pieces(self, address: int, size: int, flag: int) -> list[memoryview]:
        pieces = super()._pieces(address, size, flag)
        at = address
        for piece in pieces:
            self._record(at, piece, changes_later=bool(flag & WRITE))
            at += len(piece)
        return pieces

    def _record(self, address: int, piece: memoryview, changes_later: bool = True) -> None:
        """Record the bytes of a range now; look for changes later unless it is only read."""
        granted = self._find(address, len(piece))
        start = address - granted.address
        shadow = self._shadows[granted.address][start : start + len(piece)]
        now, known = bytes(piece), bytes(shadow)
        if now != known:
            self.settle()  # what the card itself wrote before this is no news
            known = bytes(shadow)
            if now != known:
                self._saw += changes(address, known, now)
                shadow[:] = now
        if changes_later:
            self._open.append((address, piece, shadow))

    def settle(self) -> None:
        """Record the changes through views so far."""
        for address, piece, shadow in self._open:
            now, known = bytes(piece), bytes(shadow)
            if now != known:
                self._did += changes(address, known, now)
                shadow[:] = now

    def begin(self) -> None:
        """Start an access."""
        self._saw, self._did = [], []
        self._open.clear()

    def finish(self) -> Entry:
        """End an access; return what was seen and done, empty parts left out."""
        self.settle()
        self._open.clear()
        parts = {"saw": self._saw, "did": self._did}
        return {name: part for name, part in parts.items() if part}


class RecordingInterrupts:
    """Interrupts that are recorded and passed on."""

    def __init__(self, inner: Interrupts) -> None:
        self.inner = inner
        self.raised: list[int] = []
        self.before: Callable[[], None] = lambda: None

    def fire(self, vector: int) -> None:
        """Raise a vector; changes so far are recorded before the guest learns of it."""
        self.before()
        self.raised.append(vector)
        self.inner.fire(vector)


@runtime_checkable
class Clocked(Protocol):
    """A device that takes its time from a clock that can be replaced."""

    clock: Callable[[], float]


@runtime_checkable
class Acting(Protocol):
    """A device whose `acted` is true if its last tick did something: its counters are not in memory."""

    acted: bool


class Recorder:
    """Device that logs every access to the one inside."""

    def __init__(
        self,
        device: Device,
        memory: RecordingMemory,
        interrupts: RecordingInterrupts,
        sink: Sink,
        time_us: Callable[[], int] = now_us,
    ) -> None:
        self.device = device
        self._time_us = time_us
        interrupts.before = memory.settle
        if isinstance(device, Clocked):
            device.clock = self.clock
        self._memory = memory
        self._interrupts = interrupts
        self._sink = sink
        self._began_us = time_us()

    def clock(self) -> float:
        """Return seconds; constant during an access, so that a replay sees the same."""
        return self._began_us / 1e6

    def _begin(self) -> None:
        self._began_us = self._time_us()
        self._memory.begin()
        self._interrupts.raised = []

    def _finish(self, entry: Entry, always: bool = True) -> None:
        effects = self._memory.finish()
        if self._interrupts.raised:
            effects["irq"] = self._interrupts.raised
        if always or effects:
            self._sink({**entry, "t": self._began_us, **effects})

    def bar_read(self, bar: int, offset: int, size: int) -> bytes:
        """As the device inside."""
        self._begin()
        data = b""
        try:
            data = self.device.bar_read(bar, offset, size)
        finally:
            self._finish({"k": "read", "b": bar, "o": offset, "n": size, "g": data.hex()})
        return data

    def bar_write(self, bar: int, offset: int, data: bytes) -> None:
        """As the device inside."""
        self._begin()
        try:
            self.device.bar_write(bar, offset, data)
        finally:
            self._finish({"k": "write", "b": bar, "o": offset, "d": data.hex()})

    def tick(self) -> float | None:
        """As the device inside; only ticks that did something are logged."""
        self._begin()
        try:
            return self.device.tick()
        finally:
            self._finish({"k": "tick"}, always=isinstance(self.device, Acting) and self.device.acted)

    def reset(self) -> None:
        """As the device inside."""
        self._begin()
        try:
            self.device.reset()
        finally:
            self._finish({"k": "reset"})

    def detach(self) -> None:
        """As the device inside."""
        self._begin()
        try:
            self.device.detach()
        finally:
            self._finish({"k": "detach"})
