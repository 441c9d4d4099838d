"""The device taken away from a process that transfers, and given back to the machine.

Soft-RoCE's link is removed (`rdma link delete`); a card's driver for RDMA is unbound from it. Neither waits for
processes: theirs ends by itself, since its device answers nothing any more. Then the device comes back, and works.
Ref: Linux 7.3 drivers/infiniband/core/uverbs_main.c, ib_uverbs_remove_one, uverbs_disassociate_api
"""

from __future__ import annotations

import os
import random
import threading
import time
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from typing import Callable, List, NoReturn

from harness.guest import mlx5, nldev
from harness.guest.killed import LIFE_S
from harness.guest.nldev import Device, NlDev
from harness.guest.pair import REMOTE, Pair
from harness.guest.problems import WorkFailed
from harness.guest.victim import Victim, tell
from harness.values.case import Case

# What a transfer has whose device may be gone.
PATIENCE_S = 2.0
# The victim's words for what it met.
LOST = 7


def unbind(case: Case, netlink: NlDev, device: Device) -> List[int]:
    """Each round the device goes while a child transfers; the child must end, and the device must work again."""
    draw = random.Random(case.seed)
    times: List[int] = []
    for turn in range(1, case.workload.rounds + 1):
        began = time.monotonic_ns()
        case = replace(case, device=device.name)
        victim = Victim(partial(_live, case), turn, case.timeout_s)
        time.sleep(draw.random() * LIFE_S)
        victim.note()
        bring_back = _take_away(netlink, device, case.timeout_s)
        status = victim.see_off()
        device = bring_back()
        if status != LOST << 8:
            raise WorkFailed(f"round {turn}: the process whose device was gone ended with status {status:#x}")
        with ExitStack() as stack:
            Pair(replace(case, device=device.name), stack).write(turn)
        times.append(time.monotonic_ns() - began)
    return times


def _take_away(netlink: NlDev, device: Device, timeout_s: float) -> Callable[[], Device]:
    """Take the device away; what is returned brings it back. WorkFailed if that takes longer than `timeout_s`."""
    card = mlx5.auxiliary(device)
    if card:
        _in_time(lambda: mlx5.bind(card, on=False), timeout_s)
    else:
        # A socket of its own: what waits in the kernel keeps it.
        _in_time(lambda: NlDev().remove_link(device.name), timeout_s)

    def back() -> Device:
        if card:
            mlx5.bind(card)
            return mlx5.wait(netlink)
        return nldev.bring_up(device.name)

    return back


def _in_time(work: Callable[[], None], timeout_s: float) -> None:
    failed: List[BaseException] = []

    def run() -> None:
        try:
            work()
        except OSError as error:
            failed.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(timeout_s)
    if thread.is_alive():
        raise WorkFailed(f"the device was not gone after {timeout_s:g} s")
    for error in failed:
        raise WorkFailed(f"the device does not go: {error}")


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
