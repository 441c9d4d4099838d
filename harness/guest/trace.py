"""One bcc program that times each page fault and invalidation in the kernel.

`Tracer` compiles and attaches it once, in preparation. A case arms it (`start`, which also zeroes what was
counted) and takes a `Trace` of it (`stop`). Counting costs no system call while the case runs.

A stage whose symbol this kernel does not have is in `missing` and never in a trace: nothing is guessed.
"""

from __future__ import annotations

import ctypes
import os
import time
from pathlib import Path
from typing import Any, Dict, List, Optional, Tuple

from harness.guest import stages
from harness.guest.stages import EXIT, SPAN, Driver, Place, Stage
from harness.values.answer import FaultRecord, Trace
from harness.values.histogram import Histogram

SIDES = ("local", "remote", "other")
_OTHER = SIDES.index("other")
_BUCKETS = 40
_NO_MINIMUM = (1 << 64) - 1
_SETTLE_TRIES = 200
_SETTLE_S = 0.005
_BTF = Path("/sys/kernel/btf")


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
        ("stages", _Stage * len(stages.names())),
    ]


class _Record(ctypes.Structure):
    _fields_ = [
        ("start_ns", ctypes.c_uint64),
        ("duration_ns", ctypes.c_uint64),
        ("address", ctypes.c_uint64),
        ("length", ctypes.c_uint64),
        ("pages", ctypes.c_int32),
        ("cpu", ctypes.c_uint32),
        ("inner_ns", ctypes.c_uint64 * len(stages.names())),
    ]


class Tracer:
    """A driver's probes, compiled and attached. Raises RuntimeError with what bcc said when they cannot be."""

    def __init__(self, driver: Driver) -> None:
        from bcc import BPF

        self.driver = driver
        found = stages.places(driver, Path("/proc/kallsyms").read_text())
        found = {s.name: found[s.name] for s in driver.stages if s.name in found and _can(s, found[s.name])}
        self.missing = tuple(s.name for s in driver.stages if s.name not in found)
        self.sources = {name: f"{place.symbol} [{place.module}]" for name, place in found.items()}
        text = stages.declarations(driver, found) + (Path(__file__).parent / "probes.c").read_text()
        try:
            # Trampolines attach by themselves: bcc knows them by their names.
            self._bpf: Any = BPF(text=text.encode())
            spans = {
                (found[s.name].symbol, s.probe) for s in driver.stages if s.name in found and s.shape == SPAN
            }
            for symbol, probe in sorted(spans):
                self._bpf.attach_kprobe(event=symbol, fn_name=f"enter_{probe}")
                self._bpf.attach_kretprobe(event=symbol, fn_name=f"leave_{probe}")
        except Exception as error:  # bcc raises bare Exception
            raise RuntimeError(f"the probes do not compile or attach: {error}") from error
        self._table = self._bpf["state"]
        self._records: List[_Record] = []
        self._bpf["records"].open_ring_buffer(self._take)
        self._programs = _program_fds(self._bpf)
        self._missed_before = 0

    def start(self, local: Tuple[int, int], remote: Tuple[int, int]) -> None:
        """Forget everything counted and count from now on; the ranges are (start, end) of the regions."""
        self._bpf.ring_buffer_consume()
        self._records.clear()
        self._missed_before = self._missed()
        state = _State(armed=1)
        for side, (start, end) in enumerate((local, remote)):
            state.start[side], state.end[side] = start, end
        for stage in state.stages:
            stage.minimum_ns = _NO_MINIMUM
        self._write(state)

    def stop(self, began_ns: int) -> Trace:
        """Stop counting and return what was seen; times of records count from `began_ns`.

        A card goes on at the driver's resume, while the driver is still on its way out of it: calls under way
        are waited for.
        """
        state = self._settled()
        self._write(_State())
        self._bpf.ring_buffer_consume()
        missed = self._missed() - self._missed_before + state.entered - state.left
        return read_trace(state, self._records, self.driver, self.missing, began_ns, missed)

    def close(self) -> None:
        """Detach and unload."""
        self._bpf.cleanup()

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

    def _missed(self) -> int:
        return sum(_misses(fd) for fd in self._programs)


def read_trace(
    state: Any, records: List[Any], driver: Driver, missing: Tuple[str, ...], began_ns: int, missed: int
) -> Trace:
    """Turn the kernel's counters and records into a `Trace`."""
    counts: Dict[str, int] = {}
    histograms = []
    there = [stage for stage in driver.stages if stage.name not in missing]
    for stage in there:
        seen = state.stages[stages.number(stage.name)]
        counts.update(_counts(stage, seen))
        if stage.shape == SPAN:
            histograms.append(_histogram(stage.name, seen))
    inner = {s.name: stages.number(s.name) for s in there if s.name != driver.whole and s.shape == SPAN}
    faults = tuple(
        FaultRecord(
            r.start_ns - began_ns,
            r.duration_ns,
            r.address,
            r.length,
            r.pages,
            r.cpu,
            {name: r.inner_ns[at] for name, at in inner.items() if r.inner_ns[at]},
        )
        for r in records
    )
    return Trace(counts, tuple(histograms), faults, state.lost, missed)


def _counts(stage: Stage, seen: Any) -> Dict[str, int]:
    """Calls and pages, by side where the stage knows one; how many failed, for what can."""
    if stage.shape == EXIT:
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


def _can(stage: Stage, place: Place) -> bool:
    """A trampoline needs the module's types."""
    return stage.shape != EXIT or (_BTF / place.module).exists()


def _histogram(name: str, seen: Any) -> Histogram:
    counts = list(seen.buckets)
    while counts and not counts[-1]:
        counts.pop()
    minimum = seen.minimum_ns if counts else 0
    return Histogram(name, "ns", tuple(counts), seen.total_ns, minimum, seen.maximum_ns)


def _program_fds(bpf: Any) -> Tuple[int, ...]:
    return tuple(function.fd for function in bpf.funcs.values())


def _misses(fd: int) -> int:
    """How often the kernel did not run a program because it was running already on that CPU."""
    raw = os.open(f"/proc/self/fdinfo/{fd}", os.O_RDONLY)
    try:
        text = os.read(raw, 4096).decode()
    finally:
        os.close(raw)
    return int(_field(text, "recursion_misses") or 0)


def _field(text: str, name: str) -> Optional[str]:
    for line in text.splitlines():
        key, _, value = line.partition(":")
        if key == name:
            return value.strip()
    return None
