"""Run a stored case again: to compare, or under gdb."""

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
    """Add the record and the way to run it."""
    parser.add_argument("record", type=Path, help="a file of RESULTS/records")
    parser.add_argument("--times", type=int, default=1, metavar="N", help="how often (default 1)")
    modules = "modules for the payload disk (default: those beside the record)"
    parser.add_argument("--payload", type=Path, metavar="DIR", help=modules)
    under = "under gdb, stopped where the case begins; `print` prints the command that starts gdb elsewhere"
    parser.add_argument("--gdb", nargs="?", const=GDB, choices=(GDB, PRINT), help=under)


def act(arguments: argparse.Namespace) -> int:
    """Exit with status 0 when each run ends as recorded, else 1; 0 under gdb, where a stop shifts what follows."""
    if arguments.gdb and arguments.times != 1:
        raise UsageError("--gdb runs a case once")
    source = stored(arguments.record)
    record = source.record
    plan = source.plan or todays(record, find_folder("testplans", None))
    case = planned(record, plan)
    reasons = "; ".join(map(str, record.reasons))
    out.print(f"{record.verdict}  {record.case.id}  {reasons}".rstrip(), markup=False)
    if not source.plan:
        err.print(f"no copy of its plan is beside the record: using {plan}", markup=False)
    with open_session(arguments) as opened:
        chosen = dataclasses.replace(opened.options, payload=arguments.payload or source.payload)
        with Session(chosen, opened.say) as session:
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
        end = debug(session, case, _start_gdb(session) if here else _print_command)
    if end.problem:
        out.print(f"the kernel failed: {end.problem}", markup=False)
    if end.answer is None:
        out.print("gdb ended before the case did", markup=False)
    elif case.clock == "exact" and record.answer is not None:
        differs = first_difference(record.answer, end.answer)
        text = f"the answer differs, as a stop may cause: {differs}" if differs else "the answer is the same"
        out.print(text, markup=False)
    else:
        out.print(f"the workload ended: {end.answer.status}", markup=False)
    return 0


def _start_gdb(session: Session) -> Callable[[Sequence[str], Machine], Callable[[], bool]]:
    """Run gdb on this terminal."""

    def start(argv: Sequence[str], machine: Machine) -> Callable[[], bool]:
        # From here on gdb alone handles Ctrl-C. A handler, not SIG_IGN: gdb would inherit that.
        signal.signal(signal.SIGINT, lambda number, frame: None)
        child = session.host.start(argv, stdin=None, stdout=None, stderr=2, own_session=False)
        return lambda: child.poll() is not None

    return start


def _print_command(argv: Sequence[str], machine: Machine) -> Callable[[], bool]:
    """Print the command for a gdb elsewhere: it has ended when it was connected and no longer is."""
    out.print(shlex.join(argv), markup=False)
    sys.stdout.flush()
    err.print("the machine is stopped; Ctrl-C here, or the end of that gdb, ends the session", markup=False)
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
    """Restore the terminal and the handler of Ctrl-C at the end."""
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
