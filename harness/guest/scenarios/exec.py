"""execve() while the device faults on the process's memory, which is gone at that moment.

One thread transfers, another one calls execve(2). The device's file is closed by it, since libibverbs marks it
close-on-exec; or the new program inherits it, with the queues and the registration of memory that no longer exists:
the device's accesses must fail, and all objects must go when the file is closed.
Ref: Linux 7.3 fs/exec.c, begin_new_exec: other threads end, the memory is replaced, files are closed; in that order.
"""

from __future__ import annotations

import os
import random
import threading
import time
from contextlib import ExitStack
from typing import List, NoReturn

from harness.guest.errors import WorkFailed
from harness.guest.scenarios.child import Child, report_memory
from harness.guest.scenarios.kill import MAX_LIFE_S
from harness.guest.scenarios.pair import REMOTE, Pair
from harness.guest.scenarios.registry import scenario, timed_rounds
from harness.values.case import Case

# It prints its name, and runs until its standard input ends.
PROGRAM = ("/bin/sh", "-c", "echo $0; read nothing", "another program")
BATCH = 8


@scenario("exec")
def exec_closing(case: Case) -> List[int]:
    """Close the device's file by the exec."""
    return _rounds(case, inherit=False)


@scenario("exec_inherit")
def exec_inherit(case: Case) -> List[int]:
    """Let the new program inherit the device's file, with all objects; the registered memory is gone."""
    return _rounds(case, inherit=True)


def _rounds(case: Case, inherit: bool) -> List[int]:
    draw = random.Random(case.seed)

    def one_round(number: int) -> None:
        _exec_one(case, draw.random() * MAX_LIFE_S, inherit, number)
        with ExitStack() as stack:
            Pair(case, stack).write(number)

    return timed_rounds(case, one_round)


def _exec_one(case: Case, life_s: float, inherit: bool, number: int) -> None:
    """Have a child exec; the new program must start, the device work beside it, and the program exit."""
    stdin, stdin_writer = os.pipe()

    def main(fd: int) -> NoReturn:
        os.close(stdin_writer)
        _child_main(case, life_s, inherit, stdin, fd)

    child = Child(main, number, case.timeout_s)
    os.close(stdin)
    child.record_frames()
    printed = os.read(child.output, 100).decode(errors="replace").strip()
    try:
        if printed == PROGRAM[-1]:
            with ExitStack() as stack:
                Pair(case, stack).write(number)
    finally:
        os.close(stdin_writer)
        status = child.wait()
    if printed != PROGRAM[-1] or status not in (0, 1 << 8):
        raise WorkFailed(f"round {number}: the new program printed {printed!r}, wait status {status:#x}")


def _child_main(case: Case, life_s: float, inherit: bool, stdin: int, stdout: int) -> NoReturn:
    try:
        with ExitStack() as stack:
            pair = Pair(case, stack)
            pair.write(1)
            report_memory(stdout, pair)
            os.dup2(stdin, 0)
            os.dup2(stdout, 1)
            if inherit:
                os.set_inheritable(pair.connection.context.cmd_fd, True)
            threading.Thread(target=_exec_later, args=(life_s,)).start()
            _transfer(pair)
    finally:
        os._exit(2)


def _exec_later(life_s: float) -> None:
    time.sleep(life_s)
    try:
        os.execv(PROGRAM[0], PROGRAM)
    finally:
        os._exit(3)


def _transfer(pair: Pair) -> None:
    """Write to absent remote pages for ever, BATCH work requests at a time: some are pending at the exec."""
    work = pair.work()
    while True:
        pair.invalidate(REMOTE)
        for _ in range(BATCH):
            pair.connection.requester.post_send(work)
        pair.connection.wait(BATCH)
