"""Trace page faults of whatever runs on the machine, and report them as they come."""

from __future__ import annotations

import os
import platform
import signal
import subprocess
import tempfile
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import Any, Callable, Dict, NamedTuple, Optional, Sequence, Tuple

from harness.guest import command
from harness.guest.errors import Unsupported
from harness.guest.trace import stages
from harness.guest.trace.bpf_program import Program
from harness.guest.trace.tracer import Tracer
from harness.values.answer import Trace
from harness.values.case import Watch

MAX_RECORDS = 2000
"""Records reported at a time; more would slow the traced work down. The rest is counted as lost."""

_NOWHERE = (0, 0)
_MODULES = Path("/sys/module")
_LOCKDOWN = Path("/sys/kernel/security/lockdown")
_KPROBES = Path("/sys/bus/event_source/devices/kprobe")
_KERNEL_HEADERS = Path("/sys/kernel/kheaders.tar.xz")


class Watched(NamedTuple):
    """The command's exit status and output, and where each stage is probed (`missing` where nowhere)."""

    exit_status: int
    output: str
    facts: Dict[str, str]


def driver_of(name: str) -> stages.Driver:
    """Return the driver to trace: by name, or the only one that is loaded. Unsupported names the module to load."""
    loaded = [d for d in stages.DRIVERS.values() if (_MODULES / d.module).exists()]
    chosen = [d for d in loaded if name in ("", d.name)]
    if not chosen:
        which = [d.module for d in stages.DRIVERS.values() if name in ("", d.name)]
        raise Unsupported(f"{' and '.join(which) or name} not loaded: modprobe it, then trace")
    if len(chosen) > 1:
        raise Unsupported(
            f"{' and '.join(d.module for d in chosen)} are loaded: choose one, --device mlx5 or rxe"
        )
    return chosen[0]


def obstacle() -> str:
    """Return why bcc cannot work here, with a remedy, or nothing."""
    if os.geteuid() != 0:
        return "tracing needs root: run this with sudo"
    if _LOCKDOWN.exists() and "[confidentiality]" in _LOCKDOWN.read_text():
        return "the kernel is locked down (confidentiality): tracing is disabled"
    if not _KPROBES.exists():
        return "this kernel has no kprobes (CONFIG_KPROBE_EVENTS)"
    release = platform.release()
    if not (Path(f"/lib/modules/{release}/build").exists() or _KERNEL_HEADERS.exists()):
        return f"no headers of this kernel: apt-get install linux-headers-{release}"
    try:
        import bcc  # noqa: F401
    except ImportError as error:
        return f"no bcc for {platform.python_version()} ({error}): apt-get install python3-bpfcc"
    return ""


def run(
    watch: Watch,
    tracer: Optional[Tracer],
    argv: Sequence[str],
    environment: Dict[str, str],
    report: Callable[[Trace], None],
) -> Watched:
    """Trace while the command runs (or for the given time, or until a signal), and `report` at intervals.

    A tracer passed in is used and stays attached. Unsupported if tracing is impossible.
    """
    own: Optional[Tracer] = None
    if tracer is None:
        problem = obstacle()
        if problem:
            raise Unsupported(problem)
        tracer = own = Tracer(Program(driver_of(watch.driver)))
    try:
        status, output = _watched(watch, tracer, argv, environment, report)
    finally:
        if own is not None:
            own.close()
    return Watched(status, output, tracer.places)


def _watched(
    watch: Watch,
    tracer: Tracer,
    argv: Sequence[str],
    environment: Dict[str, str],
    report: Callable[[Trace], None],
) -> Tuple[int, str]:
    began, stop = time.monotonic_ns(), _stopped()
    until = time.monotonic() + watch.seconds if watch.seconds else float("inf")
    dropped = 0
    tracer.start(_NOWHERE, _NOWHERE)
    with tempfile.TemporaryFile() as output_file:
        child = _start(argv, environment, output_file) if argv else None
        try:
            while not stop.wait(watch.interval_s) and time.monotonic() < until:
                if child is not None and child.poll() is not None:
                    break
                trace, dropped = _limited(tracer.look(began), dropped)
                report(trace)
        finally:
            if child is not None and child.poll() is None:
                child.terminate()
                child.wait()
        trace, _ = _limited(tracer.stop(began), dropped)
        report(trace)
        output_file.seek(0)
        output = output_file.read().decode(errors="replace")
    return (0 if child is None else command.status_of(child.returncode)), output


def _limited(trace: Trace, dropped: int) -> Tuple[Trace, int]:
    """Cut the records to MAX_RECORDS; return the trace and how many were dropped so far, which count as lost."""
    dropped += max(0, len(trace.faults) - MAX_RECORDS)
    return replace(trace, faults=trace.faults[:MAX_RECORDS], lost=trace.lost + dropped), dropped


def _start(argv: Sequence[str], environment: Dict[str, str], output: Any) -> "subprocess.Popen[bytes]":
    environment = {**os.environ, **environment}
    return subprocess.Popen(
        argv, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT, env=environment
    )


def _stopped() -> threading.Event:
    """Return an event that is set by SIGINT and SIGTERM, so that the summary is still reported."""
    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    return stop
