"""A tiny case of every operation and every page-loss method, run before the machine is saved.

After it nothing that a case needs is on a disk any more: code, bytecode and kernel paths are in memory. That is what
makes a restored machine repeat exactly.
"""

from __future__ import annotations

from typing import List, Tuple

from harness.guest.mm import libc
from harness.guest.mm.page_loss import METHODS
from harness.guest.rdma.workloads import PATTERNS
from harness.guest.target import Target
from harness.values import codec
from harness.values.case import Case, PageLoss, Region, Workload

# Scenarios that no known kernel oopses on, which would be the end of the preparation.
SCENARIOS = ("advise", "rereg", "kill")


def rehearse(target: Target) -> str:
    """Run all rehearsals; return how many ended with each status."""
    outcomes: List[str] = []
    for number, workload in enumerate(rehearsals()):
        answer = target.run(Case(f"rehearsal-{number}", target.device, workload, seed=1))
        codec.dumps(answer)
        outcomes.append(answer.status)
    return ", ".join(f"{outcomes.count(status)} {status}" for status in sorted(set(outcomes)))


def rehearsals() -> Tuple[Workload, ...]:
    """Return workloads with every operation, page-loss method and mapping."""
    anonymous = Region(2 * libc.PAGE_BYTES)
    workloads = [
        Workload(
            name,
            2,
            anonymous,
            anonymous,
            PageLoss("dontneed", "both"),
            mtu_bytes=4096 if name == "write" else 1024,
        )
        for name in PATTERNS
    ]
    workloads += [Workload("write", 1, anonymous, anonymous, PageLoss(method, "both")) for method in METHODS]
    workloads += [
        Workload(
            "write", 1, Region(4096, mapping=mapping), Region(4096, mapping=mapping, odp=odp), PageLoss()
        )
        for mapping, odp in (("shared", True), ("file", False), ("thp", True), ("hugetlb", True))
    ]
    read_only = Region(2 * libc.PAGE_BYTES, prot="read")
    workloads += [Workload("write", 2, read_only, anonymous, PageLoss("dontneed", "both"))]
    workloads += [Workload(name, 1, anonymous, anonymous) for name in SCENARIOS]
    return tuple(workloads)
