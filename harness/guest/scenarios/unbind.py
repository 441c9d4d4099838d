"""The device taken away from a process that transfers, and given back to the machine.

Soft-RoCE's link is removed (`rdma link delete`); a card's driver for RDMA is unbound from it. A driver that can take
its device from a process does so: the process ends by itself, since its device answers nothing any more. One that
cannot (rxe before Linux 7.3) waits for its processes: then this one is killed. The device must go, come back, and work.
Ref: Linux 7.3 drivers/infiniband/core/uverbs_main.c, ib_uverbs_remove_one
"""

from __future__ import annotations

import os
import random
import re
import signal
import time
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Callable, List, NoReturn, Tuple

from harness.guest.errors import WorkFailed
from harness.guest.rdma import mlx5, nldev
from harness.guest.rdma.nldev import (
    Device,
    NlDev,
)
from harness.guest.scenarios.background import begin
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

# What a transfer has whose device may be gone.
PATIENCE_S = 2.0
# The victim's words for what it met.
LOST = 7


def unbind(case: Case, netlink: NlDev, device: Device) -> List[int]:
    """Each round the device goes while a child transfers; the child must end, and the device must work again."""
    draw = random.Random(case.seed)
    times: List[int] = []
    waits = not lets_go(Path("/proc/kallsyms").read_text(), bool(mlx5.auxiliary(device)))
    for turn in range(1, case.workload.rounds + 1):
        began = time.monotonic_ns()
        case = replace(case, device=device.name)
        victim = Victim(partial(_live, case), turn, case.timeout_s)
        time.sleep(draw.random() * LIFE_S)
        victim.note()
        gone, bring_back = _take_away(netlink, device)
        if waits:
            time.sleep(LIFE_S)
            os.kill(victim.pid, signal.SIGKILL)
        gone(case.timeout_s)
        status = victim.see_off()
        device = bring_back()
        if status != (signal.SIGKILL if waits else LOST << 8):
            raise WorkFailed(f"round {turn}: the process whose device was gone ended with status {status:#x}")
        with ExitStack() as stack:
            Pair(replace(case, device=device.name), stack).write(turn)
        times.append(time.monotonic_ns() - began)
    return times


def lets_go(symbols: str, card: bool) -> bool:
    """Whether the driver, of a card or of soft-RoCE, can take its device from a process."""
    module = "mlx5_ib" if card else "rdma_rxe"
    return re.search(rf"_disassociate_ucontext\t\[{module}\]$", symbols, re.MULTILINE) is not None


def _take_away(netlink: NlDev, device: Device) -> Tuple[Callable[[float], None], Callable[[], Device]]:
    """Begin to take the device away; what is returned waits until it is gone, and brings it back."""
    card = mlx5.auxiliary(device)

    def away() -> None:
        if card:
            mlx5.bind(card, on=False)
        else:
            # By a socket of its own: what waits in the kernel keeps it.
            NlDev().remove_link(device.name)

    def back() -> Device:
        if card:
            mlx5.bind(card)
            return mlx5.wait(netlink)
        return nldev.bring_up(device.name)

    return begin("the device goes", away), back


def _live(case: Case, say: int) -> NoReturn:
    status = 1
    try:
        with ExitStack() as stack:
            pair = Pair(replace(case, timeout_s=PATIENCE_S), stack)
            pair.write(1)
            tell(say, pair)
            while True:
                pair.lose(REMOTE)
                try:
                    pair.transfer()
                except Exception:  # whatever pyverbs makes of it
                    status = LOST
                    break
            stack.pop_all()
    finally:
        os._exit(status)
