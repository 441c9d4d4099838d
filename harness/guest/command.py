"""Run a command and report its output as it comes, also that of one that crashes the machine."""

from __future__ import annotations

import codecs
import contextlib
import os
import subprocess
from typing import Callable, Dict, Iterator, Sequence

_PIECE_BYTES = 64 << 10
_PRIORITY = 50


def run(argv: Sequence[str], environment: Dict[str, str], report: Callable[[str], None]) -> int:
    """Run a command to its end and return its exit status; `report` gets its output, both streams in one."""
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    child = subprocess.Popen(
        argv,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env={**os.environ, **environment},
    )
    with child, _before_others():
        assert child.stdout is not None
        data = b" "
        while data:
            data = os.read(child.stdout.fileno(), _PIECE_BYTES)
            text = decoder.decode(data, final=not data)
            if text:
                report(text)
    return status_of(child.returncode)


def status_of(returncode: int) -> int:
    """Return the exit status as a shell gives it: 128 and the number of the signal that killed the command."""
    return returncode if returncode >= 0 else 128 - returncode


@contextlib.contextmanager
def _before_others() -> Iterator[None]:
    """Run before any ordinary process: a line is passed on before the command that printed it can crash the machine."""
    policy, parameter = os.sched_getscheduler(0), os.sched_getparam(0)
    try:
        os.sched_setscheduler(0, os.SCHED_FIFO | os.SCHED_RESET_ON_FORK, os.sched_param(_PRIORITY))
    except PermissionError:
        # An ordinary user's machine is not one of ours.
        yield
        return
    try:
        yield
    finally:
        os.sched_setscheduler(0, policy, parameter)
