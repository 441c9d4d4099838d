"""Runs a command and passes on what it prints as it comes: also of one that takes the machine down."""

from __future__ import annotations

import codecs
import contextlib
import os
import subprocess
from typing import Callable, Dict, Iterator, Sequence

_PIECE_BYTES = 64 << 10
_PRIORITY = 50


def run(argv: Sequence[str], environment: Dict[str, str], tell: Callable[[str], None]) -> int:
    """Run a command to its end; returns its exit status. `tell` gets what it prints, both streams in one."""
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
                tell(text)
    return status_of(child.returncode)


def status_of(returncode: int) -> int:
    """The exit status as a shell gives it: 128 and the number of the signal that killed the command."""
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
