"""A stored case, run again: to compare, or under gdb."""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import shlex
import signal
import sys
import termios
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from harness.cli.common import (
    err,
    open_session,
    out,
)
from harness.errors import UsageError
from harness.host import require
from harness.machine.vm import Machine
from harness.plan.answer_diff import first_difference
from harness.plan.checkout import find_folder
from harness.plan.plan import Planned
from harness.plan.replay import difference, fetch, planned, stored, todays
from harness.plan.replay_gdb import (
    at_stub,
    debug,
)
from harness.plan.runner import CaseRunner
from harness.plan.session import Session
from harness.values.record import Record

GDB, PRINT = "run", "print"


def options(parser: argparse.ArgumentParser) -> None:
    """Which record."""
    parser.add_argument("record", type=Path, help="a file of RESULTS/records")
    parser.add_argument("--times", type=int, default=1, metavar="N", help="how often (default 1)")
    given = "modules to give the machine (default: those beside the record)"
    parser.add_argument("--parcel", type=Path, metavar="DIR", help=given)
    under = "under gdb, stopped where the case begins; `print` says how to start gdb elsewhere, as without a terminal"
    parser.add_argument("--gdb", nargs="?", const=GDB, choices=(GDB, PRINT), help=under)


def act(arguments: argparse.Namespace) -> int:
    """Exit status 0 when each run ended as the record says, else 1; 0 under gdb, where a stop moves what follows it."""
    if arguments.gdb and arguments.times != 1:
        raise UsageError("--gdb runs a case once")
    found = stored(arguments.record)
    record = found.record
    plan = found.plan or todays(record, find_folder("testplans", None))
    case = planned(record, plan)
    reasons = "; ".join(map(str, record.reasons))
    out.print(f"{record.verdict}  {record.case.id}  {reasons}".rstrip(), markup=False)
    if not found.plan:
        err.print(f"no copy of its plan is beside the record: as {plan} is now", markup=False)
    with open_session(arguments) as opened:
        wanted = dataclasses.replace(opened.options, parcel=arguments.parcel or found.parcel)
        with Session(wanted, opened.say) as session:
            fetch(session, record, case)
            if arguments.gdb:
                return _debugged(session, record, case, arguments.gdb)
            ends = [difference(CaseRunner(session), record, case) for _ in range(arguments.times)]
    for number, end in enumerate(ends, 1):
        out.print(f"run {number}: {end or 'ends the same way'}", markup=False)
    return 1 if any(ends) else 0


def _debugged(session: Session, record: Record, case: Planned, how: str) -> int:
    here = how == GDB and sys.stdin.isatty() and sys.stdout.isatty()
    if here:
        require("gdb")
    with _terminal(here):
        end = debug(session, case, _started(session) if here else _told)
    if end.problem:
        out.print(f"the kernel failed: {end.problem}", markup=False)
    if end.answer is None:
        out.print("ended before the case did", markup=False)
    elif case.clock == "exact" and record.answer is not None:
        differs = first_difference(record.answer, end.answer)
        said = f"answers otherwise, which a stop may do: {differs}" if differs else "answers the same"
        out.print(said, markup=False)
    else:
        out.print(f"the workload ended: {end.answer.status}", markup=False)
    return 0


def _started(session: Session) -> Callable[[Sequence[str], Machine], Callable[[], bool]]:
    """gdb on this terminal."""

    def start(argv: Sequence[str], machine: Machine) -> Callable[[], bool]:
        # From here on Ctrl-C is gdb's alone. A handler, not SIG_IGN: gdb would inherit that.
        signal.signal(signal.SIGINT, lambda number, frame: None)
        child = session.host.start(argv, stdin=None, stdout=None, stderr=2, own_session=False)
        return lambda: child.poll() is not None

    return start


def _told(argv: Sequence[str], machine: Machine) -> Callable[[], bool]:
    """Somebody else's gdb: it has ended when it was there and is not any more."""
    out.print(shlex.join(argv), markup=False)
    sys.stdout.flush()
    err.print("the machine stands still; Ctrl-C here, or the end of that gdb, ends it", markup=False)
    seen = False

    def ended() -> bool:
        nonlocal seen
        if machine.process.poll() is not None:
            return True
        there = at_stub(machine)
        seen = seen or there
        return seen and not there

    return ended


@contextlib.contextmanager
def _terminal(here: bool) -> Iterator[None]:
    """Afterwards the terminal is as it was, and Ctrl-C is ours again."""
    if not here:
        yield
        return
    before = termios.tcgetattr(sys.stdin)
    handler = signal.getsignal(signal.SIGINT)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, handler)
        termios.tcsetattr(sys.stdin, termios.TCSADRAIN, before)
