"""The driver unloaded and loaded again."""

from __future__ import annotations

import gc
from typing import List

from harness.guest.errors import WorkFailed
from harness.guest.rdma import mlx5
from harness.guest.rdma.nldev import Device, NlDev
from harness.guest.scenarios.registry import scenario, timed_rounds
from harness.values.case import Case


@scenario("reload", device=True, odp=False, card_only=True, cold=True)
def reload(case: Case, nldev: NlDev, device: Device) -> List[int]:
    """Unload and load the driver; the device must come back active with the same ODP capabilities."""
    from harness.guest.rdma.connection import odp_capabilities

    first = odp_capabilities(device.name)

    def one_round(number: int) -> None:
        gc.collect()
        mlx5.unload()
        mlx5.load()
        after = odp_capabilities(mlx5.wait(nldev).name)
        if after != first:
            raise WorkFailed(f"round {number}: ODP capabilities were {first}, now {after}")

    return timed_rounds(case, one_round)
