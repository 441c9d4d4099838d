"""Watches page faults beside whatever the machine does, and tells of them as it goes on."""

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
"""Records told at a time; more would hold up what is watched. The rest is counted as lost."""

_NOWHERE = (0, 0)
_MODULES = Path("/sys/module")
_LOCKDOWN = Path("/sys/kernel/security/lockdown")
_KPROBES = Path("/sys/bus/event_source/devices/kprobe")
_KERNEL_HEADERS = Path("/sys/kernel/kheaders.tar.xz")


class Watched(NamedTuple):
    """How the command ended, what it said, and where each stage was probed (`missing` where nowhere)."""

    exit_status: int
    output: str
    facts: Dict[str, str]


def driver_of(name: str) -> stages.Driver:
    """The driver to trace: by name, or the one of those known that is loaded. Unsupported says what to load."""
    loaded = [d for d in stages.DRIVERS.values() if (_MODULES / d.module).exists()]
    wanted = [d for d in loaded if name in ("", d.name)]
    if not wanted:
        which = [d.module for d in stages.DRIVERS.values() if name in ("", d.name)]
        raise Unsupported(f"{' and '.join(which) or name} not loaded: modprobe it, then trace")
    if len(wanted) > 1:
        raise Unsupported(
            f"{' and '.join(d.module for d in wanted)} are loaded: say which, --device mlx5 or rxe"
        )
    return wanted[0]


def obstacle() -> str:
    """What keeps bcc from working here, with what mends it, or nothing."""
    if os.geteuid() != 0:
        return "tracing needs root: run this with sudo"
    if _LOCKDOWN.exists() and "[confidentiality]" in _LOCKDOWN.read_text():
        return "the kernel is locked down (confidentiality): it lets nobody trace"
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
    tell: Callable[[Trace], None],
) -> Watched:
    """Trace while the command runs (or for the time asked for, or until a signal); `tell` hears of it meanwhile.

    A tracer given is used and left in place. Raises Unsupported with what is in the way.
    """
    mine: Optional[Tracer] = None
    if tracer is None:
        problem = obstacle()
        if problem:
            raise Unsupported(problem)
        tracer = mine = Tracer(Program(driver_of(watch.driver)))
    try:
        status, output = _watched(watch, tracer, argv, environment, tell)
    finally:
        if mine is not None:
            mine.close()
    return Watched(status, output, tracer.places)


def _watched(
    watch: Watch,
    tracer: Tracer,
    argv: Sequence[str],
    environment: Dict[str, str],
    tell: Callable[[Trace], None],
) -> Tuple[int, str]:
    began, stop = time.monotonic_ns(), _stopped()
    until = time.monotonic() + watch.seconds if watch.seconds else float("inf")
    dropped = 0
    tracer.start(_NOWHERE, _NOWHERE)
    with tempfile.TemporaryFile() as said:
        child = _start(argv, environment, said) if argv else None
        try:
            while not stop.wait(watch.interval_s) and time.monotonic() < until:
                if child is not None and child.poll() is not None:
                    break
                trace, dropped = _few(tracer.look(began), dropped)
                tell(trace)
        finally:
            if child is not None and child.poll() is None:
                child.terminate()
                child.wait()
        trace, _ = _few(tracer.stop(began), dropped)
        tell(trace)
        said.seek(0)
        output = said.read().decode(errors="replace")
    return (0 if child is None else command.status_of(child.returncode)), output


def _few(trace: Trace, dropped: int) -> Tuple[Trace, int]:
    """Not more records than can be told; those left out are lost, and stay so in what is told later."""
    dropped += max(0, len(trace.faults) - MAX_RECORDS)
    return replace(trace, faults=trace.faults[:MAX_RECORDS], lost=trace.lost + dropped), dropped


def _start(argv: Sequence[str], environment: Dict[str, str], said: Any) -> "subprocess.Popen[bytes]":
    environment = {**os.environ, **environment}
    return subprocess.Popen(
        argv, stdin=subprocess.DEVNULL, stdout=said, stderr=subprocess.STDOUT, env=environment
    )


def _stopped() -> threading.Event:
    """Set when somebody asks this process to end: the summary is still to come."""
    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    return stop
