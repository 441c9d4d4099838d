"""One bcc program that times each page fault and invalidation in the kernel.

`Tracer` attaches it once, in preparation. A case zeroes and enables it (`start`), and takes a `Trace` of it (`stop`).
Counting costs no system call while the case runs.

A stage whose symbol this kernel does not have is in `missing` and never in a trace.
"""

from __future__ import annotations

import ctypes
import os
import time
from dataclasses import replace
from pathlib import Path
from typing import Any, Dict, List, NamedTuple, Tuple

from harness.guest.mm import libc
from harness.guest.trace import btf, stages
from harness.guest.trace.bpf_program import (
    Program,
    traceable,
)
from harness.guest.trace.stages import (
    QUEUE,
    SPAN,
    Driver,
    Place,
    Stage,
    TokenPlace,
)
from harness.values.answer import FaultRecord, Trace
from harness.values.histogram import FINE_BITS, Histogram, of_fine

SIDES = ("local", "remote", "other")
_OTHER = SIDES.index("other")
_BUCKETS = 37 << FINE_BITS
_NO_MINIMUM = (1 << 64) - 1
_SETTLE_TRIES = 200
_SETTLE_S = 0.005


class _Stage(ctypes.Structure):
    _fields_ = [
        ("calls", ctypes.c_uint64 * len(SIDES)),
        ("pages", ctypes.c_uint64 * len(SIDES)),
        ("failed", ctypes.c_uint64),
        ("total_ns", ctypes.c_uint64),
        ("minimum_ns", ctypes.c_uint64),
        ("maximum_ns", ctypes.c_uint64),
        ("buckets", ctypes.c_uint64 * _BUCKETS),
    ]


class _State(ctypes.Structure):
    _fields_ = [
        ("armed", ctypes.c_uint64),
        ("lost", ctypes.c_uint64),
        ("entered", ctypes.c_uint64),
        ("left", ctypes.c_uint64),
        ("start", ctypes.c_uint64 * 2),
        ("end", ctypes.c_uint64 * 2),
        ("queued_function", ctypes.c_uint64),
        ("token_at", ctypes.c_int64),
        ("token_bytes", ctypes.c_uint64),
        ("sub_type_at", ctypes.c_int64),
        ("stages", _Stage * len(stages.names())),
    ]


class _Record(ctypes.Structure):
    _fields_ = [
        ("start_ns", ctypes.c_uint64),
        ("duration_ns", ctypes.c_uint64),
        ("address", ctypes.c_uint64),
        ("length", ctypes.c_uint64),
        ("token", ctypes.c_uint64),
        ("queued_ns", ctypes.c_uint64),
        ("pages", ctypes.c_int32),
        ("cpu", ctypes.c_uint32),
        ("pid", ctypes.c_uint32),
        ("sub_type", ctypes.c_uint32),
        ("inner_at", ctypes.c_uint64 * len(stages.inner())),
        ("inner_ns", ctypes.c_uint64 * len(stages.inner())),
    ]


class Tracer:
    """A driver's probes, attached; RuntimeError with bcc's message if they cannot be."""

    def __init__(self, program: Program) -> None:
        self.driver = driver = program.driver
        places = stages.places(driver, Path("/proc/kallsyms").read_text())
        places = {
            s.name: places[s.name] for s in driver.stages if s.name in places and traceable(s, places[s.name])
        }
        self.missing = tuple(s.name for s in driver.stages if s.name not in places)
        self.sources = {name: str(place) for name, place in places.items()}
        # Of every stage, for output.
        self.places = {s.name: self.sources.get(s.name, "missing") for s in driver.stages}
        self._token = _token_place()
        self._queued_function = next((places[s.name].address for s in driver.stages if _queue(s, places)), 0)
        program.attach(places)
        self._bpf = program.bpf
        self._table = self._bpf["state"]
        self._records: List[_Record] = []
        self._bpf["records"].open_ring_buffer(self._take)
        self._programs = program.descriptors()
        self._statistics = libc.enable_bpf_statistics()
        self._before = _Statistics()
        self._since_ns = 0

    def start(self, local: Tuple[int, int], remote: Tuple[int, int]) -> None:
        """Zero all counts and count from now on; the ranges are (start, end) of the regions."""
        self._bpf.ring_buffer_consume()
        self._records.clear()
        self._before = _statistics(self._programs)
        self._since_ns = time.monotonic_ns()
        state = _State(1, queued_function=self._queued_function, **self._token._asdict())
        for side, (start, end) in enumerate((local, remote)):
            state.start[side], state.end[side] = start, end
        for stage in state.stages:
            stage.minimum_ns = _NO_MINIMUM
        self._write(state)

    def stop(self, began_ns: int) -> Trace:
        """Stop counting and return the trace; times of records count from `began_ns`.

        The driver's resume lets a card go on before the driver's function has returned, so calls in progress are
        waited for.
        """
        state = self._settled()
        self._write(_State())
        return self._trace(state, began_ns, state.entered - state.left)

    def look(self, began_ns: int) -> Trace:
        """Return the trace so far and keep counting; each record is returned once."""
        trace = self._trace(self._read(), began_ns, 0)
        self._records.clear()
        return trace

    def _trace(self, state: _State, began_ns: int, unfinished: int) -> Trace:
        self._bpf.ring_buffer_consume()
        now = _statistics(self._programs)
        missed = now.missed - self._before.missed + unfinished
        trace = read_trace(state, self._records, self.driver, self.missing, began_ns, missed)
        return replace(
            trace,
            hits=now.hits - self._before.hits,
            cost_ns=now.ns - self._before.ns,
            watched_ns=time.monotonic_ns() - self._since_ns,
        )

    def close(self) -> None:
        """Detach and unload."""
        self._bpf.cleanup()
        os.close(self._statistics)

    def _take(self, context: Any, data: Any, size: int) -> None:
        self._records.append(_Record.from_buffer_copy(ctypes.string_at(data, ctypes.sizeof(_Record))))

    def _settled(self) -> _State:
        for attempt in range(_SETTLE_TRIES):
            state = self._read()
            if state.entered == state.left or attempt == _SETTLE_TRIES - 1:
                break
            time.sleep(_SETTLE_S)
        return state

    def _read(self) -> _State:
        leaf = self._table[ctypes.c_int(0)]
        return _State.from_buffer_copy(ctypes.string_at(ctypes.addressof(leaf), ctypes.sizeof(_State)))

    def _write(self, state: _State) -> None:
        leaf = self._table.Leaf.from_buffer_copy(bytes(state))
        self._table[ctypes.c_int(0)] = leaf


def read_trace(
    state: Any, records: List[Any], driver: Driver, missing: Tuple[str, ...], began_ns: int, missed: int
) -> Trace:
    """Turn the kernel's counters and records into a `Trace`."""
    counts: Dict[str, int] = {}
    histograms = []
    traced = [stage for stage in driver.stages if stage.name not in missing]
    for stage in traced:
        seen = state.stages[stages.number(stage.name)]
        counts.update(_counts(stage, seen))
        if stage.timed:
            histograms.append(_histogram(stage.name, seen))
    numbers = {name: at for at, name in enumerate(stages.inner()) if name != driver.whole}
    inner = {s.name: numbers[s.name] for s in traced if s.name in numbers}
    faults = tuple(_record(r, inner, began_ns) for r in records)
    return Trace(counts, tuple(histograms), faults, state.lost, missed, driver.whole)


def _record(record: Any, inner: Dict[str, int], began_ns: int) -> FaultRecord:
    spent = {name: record.inner_ns[at] for name, at in inner.items() if record.inner_ns[at]}
    begun = {name: record.inner_at[inner[name]] for name in spent}
    if record.queued_ns:
        spent["queues"], begun["queues"] = record.queued_ns, -record.queued_ns
    return FaultRecord(
        record.start_ns - began_ns,
        record.duration_ns,
        record.address,
        record.length,
        record.pages,
        record.cpu,
        spent,
        begun,
        record.pid,
        record.token,
        record.sub_type,
    )


def _counts(stage: Stage, seen: Any) -> Dict[str, int]:
    """Return calls and pages, by side where the stage has one, and the failed calls of spans."""
    if stage.shape != SPAN:
        return {stage.name: seen.calls[_OTHER]}
    if not stage.sided:
        return {
            stage.name: seen.calls[_OTHER],
            f"{stage.name}_pages": seen.pages[_OTHER],
            f"{stage.name}_failed": seen.failed,
        }
    counts = {stage.name: sum(seen.calls)}
    for side, calls, pages in zip(SIDES, seen.calls, seen.pages):
        counts[f"{stage.name}_{side}"] = calls
        counts[f"{stage.name}_{side}_pages"] = pages
    counts[f"{stage.name}_failed"] = seen.failed
    return counts


def _queue(stage: Stage, places: Dict[str, Place]) -> bool:
    return stage.shape == QUEUE and stage.name in places


def _token_place() -> TokenPlace:
    """Find the place of a fault's token; empty if it has none, or the structure is unknown."""
    try:
        return stages.TOKENS.get(btf.size_of("mlx5_ib", "mlx5_pagefault"), TokenPlace())
    except LookupError:
        return TokenPlace()


def _histogram(name: str, seen: Any) -> Histogram:
    fine = tuple((bucket, number) for bucket, number in enumerate(seen.buckets) if number)
    return of_fine(name, "ns", fine, seen.total_ns, seen.minimum_ns if fine else 0, seen.maximum_ns)


class _Statistics(NamedTuple):
    """Sums over all programs: hits missed since one was running on that CPU, runs, and their time."""

    missed: int = 0
    hits: int = 0
    ns: int = 0


def _statistics(fds: Tuple[int, ...]) -> _Statistics:
    """Read the programs' statistics. Ref: Linux 7.3 kernel/bpf/syscall.c, bpf_prog_show_fdinfo"""
    sums = dict.fromkeys(("recursion_misses", "run_cnt", "run_time_ns"), 0)
    for fd in fds:
        for line in _fdinfo(fd).splitlines():
            key, _, value = line.partition(":")
            if key in sums:
                sums[key] += int(value)
    return _Statistics(*sums.values())


def _fdinfo(fd: int) -> str:
    raw = os.open(f"/proc/self/fdinfo/{fd}", os.O_RDONLY)
    try:
        return os.read(raw, 4096).decode()
    finally:
        os.close(raw)
