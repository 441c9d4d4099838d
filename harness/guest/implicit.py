"""A region that is the whole address space: its parts come and go with the pages that are used.

Ref: Linux 7.3 drivers/infiniband/hw/mlx5/odp.c, implicit_get_child_mr, destroy_unused_implicit_child_mr
"""

from __future__ import annotations

import time
from contextlib import ExitStack
from typing import List

from harness.guest import registration as registrations
from harness.guest.pair import REMOTE, Pair
from harness.guest.problems import Unsupported
from harness.guest.registration import ACCESS_ALL, ACCESS_ON_DEMAND
from harness.values.case import Case

_EVERYTHING = (1 << 64) - 1
# A part whose last page went is destroyed behind our back; a fault meanwhile is another subject (KNOWN.md,
# mlx5-implicit-child).
SETTLE_S = 0.05


def implicit(case: Case) -> List[int]:
    """Each round writes to memory of which all pages are lost, and loses them twice at once.

    At the end the region is given back, which hangs if anything still holds it.
    """
    from harness.guest.connection import odp_capabilities

    if "implicit" not in odp_capabilities(case.device)["odp"].split():
        raise Unsupported(f"{case.device} has no implicit on-demand paging")
    times = []
    with ExitStack() as stack:
        pair = Pair(case, stack)
        pair.deregister(pair.registrations[REMOTE])
        connection = pair.connection
        everything = registrations.register(
            connection.context.cmd_fd, connection.pd.handle, 0, _EVERYTHING, 0, ACCESS_ALL | ACCESS_ON_DEMAND
        )
        pair.registrations[REMOTE] = everything._replace(address=pair.memories[REMOTE].start)
        for turn in range(1, case.workload.rounds + 1):
            began = time.monotonic_ns()
            pair.write(turn)
            times.append(time.monotonic_ns() - began)
            for _ in range(2):
                pair.lose(REMOTE)
            time.sleep(SETTLE_S)
    return times
