"""Export traced faults: CSV, folded stacks for flame graphs, and a timeline for Perfetto.

Each export takes named traces (a case's, or a live one's). Ref of the timeline's format: "Trace Event Format", the
JSON that Perfetto and Chrome read: complete events `X` with times in microseconds, names by metadata `M`.
"""

from __future__ import annotations

import csv
import io
import itertools
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from harness.errors import UsageError
from harness.results.latency import stages_of
from harness.values.answer import FaultRecord, Trace

Traces = Mapping[str, Trace]

# The stage around a stage, as a flame graph stacks them; for others it is the whole fault.
_WITHIN = {"hmm": "faults", "umrs": "translations"}
_BEFORE = "queues"
_FIXED = ("case", "start_ns", "duration_ns", "address", "length", "pages", "cpu", "pid", "sub_type", "token")


def as_csv(traces: Traces) -> str:
    """Write a line per fault: its fields, and the ns that each stage in it took (empty: it had none)."""
    wholes = {trace.whole for trace in traces.values()}
    names = [name for name in stages_of(list(traces.values())) if name not in wholes]
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([*_FIXED, *(f"{name}_ns" for name in names)])
    for case, trace in traces.items():
        for fault in trace.faults:
            known = [case, *(getattr(fault, name) for name in _FIXED[1:])]
            writer.writerow([*known, *(fault.inner_ns.get(name, "") for name in names)])
    return text.getvalue()


def as_folded(traces: Traces) -> str:
    """Write lines `case;whole;stage;inner NS`: the time of a stage without those within it."""
    lines: dict[str, int] = {}
    for case, trace in traces.items():
        for fault in trace.faults:
            own = _own(fault, trace.whole)
            for stage, ns in own.items():
                if ns > 0:
                    path = ";".join((case.replace(";", ","), *_path(stage, fault, trace.whole)))
                    lines[path] = lines.get(path, 0) + ns
    return "".join(f"{path} {ns}\n" for path, ns in sorted(lines.items()))


def as_timeline(traces: Traces) -> str:
    """Write JSON for ui.perfetto.dev: a process per case, a track per stage (several where its faults overlap)."""
    events: list[dict[str, Any]] = []
    for process, (case, trace) in enumerate(traces.items(), 1):
        events.append(_named("process_name", process, 0, case))
        numbers = itertools.count(1)
        for stage in stages_of([trace]):
            events += _tracks(process, numbers, stage, trace)
    return json.dumps({"displayTimeUnit": "ns", "traceEvents": events}, separators=(",", ":")) + "\n"


EXPORTS: dict[str, Callable[[Traces], str]] = {
    ".csv": as_csv,
    ".folded": as_folded,
    ".perfetto.json": as_timeline,
}
"""Exports by the suffix of a file's name."""


def export_of(path: Path) -> Callable[[Traces], str]:
    """Find the export of a file's name; UsageError for a suffix without one."""
    for end, export in EXPORTS.items():
        if path.name.endswith(end):
            return export
    raise UsageError(f"{path.name}: unknown format", hint=f"a name that ends with {', '.join(EXPORTS)}")


def _tracks(process: int, numbers: Iterator[int], stage: str, trace: Trace) -> Iterable[dict[str, Any]]:
    """Yield the calls of one stage on tracks of the next numbers; calls that do not overlap share one."""
    tracks: list[int] = []
    free: list[int] = []
    for fault in sorted(trace.faults, key=lambda fault: _begin(stage, fault)):
        length = fault.duration_ns if stage == trace.whole else fault.inner_ns.get(stage)
        if length is None:
            continue
        begin = _begin(stage, fault)
        lane = next((at for at, until in enumerate(free) if until <= begin), len(free))
        if lane == len(free):
            free.append(0)
            tracks.append(next(numbers))
            yield _named("thread_name", process, tracks[lane], stage if not lane else f"{stage} ({lane + 1})")
        free[lane] = begin + length
        yield {
            "ph": "X",
            "name": stage,
            "cat": "odp",
            "pid": process,
            "tid": tracks[lane],
            "ts": begin / 1000,
            "dur": length / 1000,
            "args": _arguments(fault) if stage == trace.whole else {},
        }


def _begin(stage: str, fault: FaultRecord) -> int:
    return fault.start_ns + fault.inner_at_ns.get(stage, 0)


def _arguments(fault: FaultRecord) -> dict[str, Any]:
    return {
        "address": hex(fault.address),
        "length": fault.length,
        "pages": fault.pages,
        "cpu": fault.cpu,
        "pid": fault.pid,
        "token": hex(fault.token),
        "sub_type": fault.sub_type,
    }


def _named(kind: str, process: int, thread: int, name: str) -> dict[str, Any]:
    return {"ph": "M", "name": kind, "pid": process, "tid": thread, "args": {"name": name}}


def _own(fault: FaultRecord, whole: str) -> dict[str, int]:
    """Compute the ns of each stage without those within it; all but the wait before it add up to the whole."""
    own = {whole: fault.duration_ns}
    # The outer ones first: an inner one can have no more than there is.
    for stage, ns in sorted(fault.inner_ns.items(), key=lambda item: item[0] in _WITHIN):
        if stage == _BEFORE:
            own[stage] = ns
            continue
        above = _above(stage, own, whole)
        own[stage] = min(ns, own[above])
        own[above] -= own[stage]
    return own


def _above(stage: str, own: Mapping[str, int], whole: str) -> str:
    above = _WITHIN.get(stage, whole)
    return above if above in own else whole


def _path(stage: str, fault: FaultRecord, whole: str) -> tuple[str, ...]:
    if stage in (whole, _BEFORE):
        return (stage,)
    own = {whole: 0, **fault.inner_ns}
    return (*_path(_above(stage, own, whole), fault, whole), stage)
