"""Processes that become another program while the device faults on their memory, which is gone in that moment.

One thread transfers, another one calls execve(2). The device goes with the old program, since libibverbs marks its
files close-on-exec; or the new program keeps the device's file, and with it the queues and the registration, whose
memory nobody has any more: what the device still does there must fail, and must be given back with the file.
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
from harness.guest.scenarios.kill import LIFE_S
from harness.guest.scenarios.pair import (
    REMOTE,
    Pair,
)
from harness.guest.scenarios.victim import (
    Victim,
    tell,
)
from harness.values.case import Case

# It says so, and stays until its standard input ends.
PROGRAM = ("/bin/sh", "-c", "echo $0; read nothing", "another program")
BATCH = 8


def exec_closing(case: Case) -> List[int]:
    """The device's files are closed by the exec."""
    return _rounds(case, keeping=False)


def exec_keeping(case: Case) -> List[int]:
    """The new program inherits the device's file, with all objects, and the memory is gone."""
    return _rounds(case, keeping=True)


def _rounds(case: Case, keeping: bool) -> List[int]:
    draw = random.Random(case.seed)
    times: List[int] = []
    for turn in range(1, case.workload.rounds + 1):
        began = time.monotonic_ns()
        _exec_one(case, draw.random() * LIFE_S, keeping, turn)
        with ExitStack() as stack:
            Pair(case, stack).write(turn)
        times.append(time.monotonic_ns() - began)
    return times


def _exec_one(case: Case, life_s: float, keeping: bool, turn: int) -> None:
    """The new program must come up, the device must work beside it, and it must go when it is told to."""
    stay, go = os.pipe()

    def live(say: int) -> NoReturn:
        os.close(go)
        _live(case, life_s, keeping, stay, say)

    victim = Victim(live, turn, case.timeout_s)
    os.close(stay)
    victim.note()
    said = os.read(victim.said, 100).decode(errors="replace").strip()
    try:
        if said == PROGRAM[-1]:
            with ExitStack() as stack:
                Pair(case, stack).write(turn)
    finally:
        os.close(go)
        status = victim.see_off()
    if said != PROGRAM[-1] or status not in (0, 1 << 8):
        raise WorkFailed(f"round {turn}: the new program said {said!r} and ended with status {status:#x}")


def _live(case: Case, life_s: float, keeping: bool, stay: int, say: int) -> NoReturn:
    try:
        with ExitStack() as stack:
            pair = Pair(case, stack)
            pair.write(1)
            tell(say, pair)
            os.dup2(stay, 0)
            os.dup2(say, 1)
            if keeping:
                os.set_inheritable(pair.connection.context.cmd_fd, True)
            threading.Thread(target=_become, args=(life_s,)).start()
            _transfer(pair)
    finally:
        os._exit(2)


def _become(life_s: float) -> None:
    time.sleep(life_s)
    try:
        os.execv(PROGRAM[0], PROGRAM)
    finally:
        os._exit(3)


def _transfer(pair: Pair) -> None:
    """Lose the remote pages and write them, several times in one go, so that the device has work left at the end."""
    work = pair.work()
    while True:
        pair.lose(REMOTE)
        for _ in range(BATCH):
            pair.connection.requester.post_send(work)
        pair.connection.wait(BATCH)
