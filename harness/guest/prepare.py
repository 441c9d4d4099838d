"""Prepare a machine until a case costs only itself: modules, device, swap, probes, a rehearsal."""

from __future__ import annotations

import gc
import platform
from typing import Dict, Optional, Tuple

from harness.guest import bring_up
from harness.guest.mm.swap import swap_on
from harness.guest.payload import mount_payload
from harness.guest.rdma import mlx5, nldev
from harness.guest.rehearsal import rehearse
from harness.guest.target import SOFT_ROCE, Target
from harness.guest.trace import stages
from harness.guest.trace.bpf_program import Program
from harness.guest.trace.tracer import Tracer

DRIVER = ("rdma_rxe",)
MODULES = ("rdma_rxe", "ib_uverbs", "dummy", "zram")


def prepare(
    device: str, rehearsed: bool = True, probes: str = "all", program: Optional[Program] = None
) -> Tuple[Target, Dict[str, str]]:
    """Bring the device up, attach its driver's probes, rehearse; return the target, and facts about it.

    A card is plugged after the snapshot, and its capabilities are known then; here its driver is loaded and traced.
    `program` has the probes if they are compiled already. RuntimeError if the driver does not load.
    """
    facts = {"kernel": platform.release(), "python": platform.python_version(), "device": device}
    facts.update(mount_payload())
    bring_up.report_hung_tasks()
    if device == SOFT_ROCE:
        target = _soft_roce(rehearsed, probes, program, facts)
    else:
        target = _card(device, probes, program, facts)
    bring_up.raise_console_level()
    gc.collect()
    gc.freeze()
    gc.disable()
    return target, facts


def _soft_roce(rehearsed: bool, probes: str, program: Optional[Program], facts: Dict[str, str]) -> Target:
    from harness.guest.rdma.connection import odp_capabilities

    bring_up.load_modules(MODULES, facts)
    bring_up.require_modules(DRIVER, facts)
    nldev.bring_up(SOFT_ROCE)
    netlink = nldev.NlDev()
    facts.update(odp_capabilities(SOFT_ROCE))
    facts["swap"] = swap_on()
    tracer = _tracer(SOFT_ROCE, probes, program, facts)
    if rehearsed:
        facts["rehearsed"] = rehearse(Target(SOFT_ROCE, netlink, tracer if probes == "all" else None))
    return Target(SOFT_ROCE, netlink, tracer)


def _card(device: str, probes: str, program: Optional[Program], facts: Dict[str, str]) -> Target:
    bring_up.load_modules(mlx5.MODULES, facts)
    bring_up.require_modules(mlx5.UNLOAD, facts)
    bring_up.load_provider(mlx5.PROVIDER, facts)
    netlink = nldev.NlDev()
    facts["swap"] = swap_on()
    return Target(device, netlink, _tracer(device, probes, program, facts))


def _tracer(device: str, probes: str, program: Optional[Program], facts: Dict[str, str]) -> Optional[Tracer]:
    program = program or compiled(device, probes)
    if program is None:
        return None
    tracer = Tracer(program)
    facts.update({f"probe {name}": place for name, place in tracer.places.items()})
    return tracer


def compiled(device: str, probes: str) -> Optional[Program]:
    """Compile the probes of the device's driver; return None if none are wanted."""
    driver = stages.RXE if device == SOFT_ROCE else stages.MLX5
    return None if probes == "none" else Program(driver, empty=probes == "empty")
