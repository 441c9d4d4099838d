"""Workloads with a script of their own; importing the package registers all of them in SCENARIOS."""

from harness.guest.scenarios import (
    access_rights,
    advise,
    dereg,
    dereg_race,
    exec,
    fork_loop,
    fragmented,
    invalidate_while_faulting,
    kill,
    multi_qp,
    objects,
    reload,
    rereg,
    soak,
    sparse,
    unbind,
)
from harness.guest.scenarios.registry import SCENARIOS, Scenario

__all__ = [
    "SCENARIOS",
    "Scenario",
    "access_rights",
    "advise",
    "dereg",
    "dereg_race",
    "exec",
    "fork_loop",
    "fragmented",
    "invalidate_while_faulting",
    "kill",
    "multi_qp",
    "objects",
    "reload",
    "rereg",
    "soak",
    "sparse",
    "unbind",
]
