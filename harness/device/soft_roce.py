"""soft-RoCE: rdma_rxe on a dummy network device inside the machine. All of it is guest software, so a snapshot
holds it up, connected and traced."""

from __future__ import annotations

from harness.values.case import Order

NAME = "soft-roce"

# Exact time is the default where the device is guest software: nothing comes from outside during a case.
CLOCK = "exact"


def prepare(number: int) -> Order:
    """The order that brings the device up and the probes on."""
    return Order(number, "prepare", NAME)
