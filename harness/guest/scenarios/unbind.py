"""Remove the device from under a process that transfers, and bring it back.

Soft-RoCE's link is deleted (`rdma link delete`); mlx5_ib is unbound from a card. A driver that can disassociate its
user contexts does so: the process sees errors and exits. One that cannot (rxe before Linux 7.3) waits for its
processes: then the process is killed. The device must go, come back, and work.
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
from harness.guest.rdma.nldev import Device, NlDev
from harness.guest.scenarios.background import begin
from harness.guest.scenarios.child import Child, report_memory
from harness.guest.scenarios.kill import MAX_LIFE_S
from harness.guest.scenarios.pair import REMOTE, Pair
from harness.guest.scenarios.registry import scenario, timed_rounds
from harness.values.case import Case

# Timeout of a transfer whose device may be gone.
TRANSFER_TIMEOUT_S = 2.0
# Exit status of the child when its device is gone.
DEVICE_GONE = 7


@scenario("unbind", device=True)
def unbind(case: Case, netlink: NlDev, device: Device) -> List[int]:
    """Remove the device while a child transfers; the child must end, and the device must work again."""
    draw = random.Random(case.seed)
    blocks = not disassociates(Path("/proc/kallsyms").read_text(), bool(mlx5.auxiliary(device)))

    def one_round(number: int) -> None:
        nonlocal device
        child = Child(partial(_child_main, replace(case, device=device.name)), number, case.timeout_s)
        time.sleep(draw.random() * MAX_LIFE_S)
        child.record_frames()
        removed, restore = _remove(netlink, device)
        if blocks:
            time.sleep(MAX_LIFE_S)
            os.kill(child.pid, signal.SIGKILL)
        removed(case.timeout_s)
        status = child.wait()
        device = restore()
        if status != (signal.SIGKILL if blocks else DEVICE_GONE << 8):
            raise WorkFailed(f"round {number}: the process without its device ended with status {status:#x}")
        with ExitStack() as stack:
            Pair(replace(case, device=device.name), stack).write(number)

    return timed_rounds(case, one_round)


def disassociates(kallsyms: str, card: bool) -> bool:
    """Tell from the text of /proc/kallsyms whether the driver can disassociate user contexts."""
    module = "mlx5_ib" if card else "rdma_rxe"
    return re.search(rf"_disassociate_ucontext\t\[{module}\]$", kallsyms, re.MULTILINE) is not None


def _remove(netlink: NlDev, device: Device) -> Tuple[Callable[[float], None], Callable[[], Device]]:
    """Begin to remove the device; return functions that wait until it is gone, and that bring it back."""
    card = mlx5.auxiliary(device)

    def remove() -> None:
        if card:
            mlx5.bind(card, on=False)
        else:
            # On a socket of its own: it is in use while the kernel waits.
            NlDev().remove_link(device.name)

    def restore() -> Device:
        if card:
            mlx5.bind(card)
            return mlx5.wait(netlink)
        return nldev.bring_up(device.name)

    return begin("removal of the device", remove), restore


def _child_main(case: Case, fd: int) -> NoReturn:
    status = 1
    try:
        with ExitStack() as stack:
            pair = Pair(replace(case, timeout_s=TRANSFER_TIMEOUT_S), stack)
            pair.write(1)
            report_memory(fd, pair)
            while True:
                pair.invalidate(REMOTE)
                try:
                    pair.transfer()
                except Exception:  # pyverbs has exceptions of its own for each call
                    status = DEVICE_GONE
                    break
            stack.pop_all()
    finally:
        os._exit(status)
