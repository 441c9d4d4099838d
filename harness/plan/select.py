"""Which cases of a plan run: kernels, devices, a cut of the matrix, seeds."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable, Iterator, Sequence, Set
from dataclasses import replace
from typing import Any

from harness.device.traits import TRAITS
from harness.errors import Unsupported
from harness.kernel import local_tree
from harness.plan.plan import Plan, Planned


def chosen(plan: Plan, option: Any) -> Iterator[Planned]:
    """Cases of a plan under --kernel (default: newest), --device and --time."""
    kernels = plan.kernels if "all" in option.kernel else local_tree.distinct(option.kernel or ("newest",))
    devices = tuple(device for device in plan.devices if not option.device or device in option.device)
    if not devices:
        return
    cases = list(plan.cases(kernels, option.time, devices))
    if option.paced:
        cases = [replace(one, clock="paced") if TRAITS[one.case.device].plugged else one for one in cases]
    for kernel, device in itertools.product(kernels, devices):
        same = [planned for planned in cases if (planned.kernel, planned.case.device) == (kernel, device)]
        for planned in spread(same, option.cut):
            # The card's rules say what falls where: a start some instructions later says little more.
            once = option.ruled_once and planned.case.rules
            yield from seeded(planned, min(1, option.seeds) if once else option.seeds)


def spread(cases: Sequence[Planned], most: int) -> Sequence[Planned]:
    """At most so many of the cases (0: all), as far apart in their matrix as can be, the first always."""
    if not most or len(cases) <= most:
        return cases
    return [cases[number * len(cases) // most] for number in range(most)]


def seeded(planned: Planned, seeds: int) -> Iterator[Planned]:
    """The case, or so many of it as seeds are wanted: each starts some instructions later than the one before."""
    if not seeds:
        yield planned
    for seed in range(seeds):
        case = replace(planned.case, id=f"{planned.case.id}/seed={seed}", seed=planned.case.seed + seed)
        yield replace(planned, case=case)


def newest_is_another(kernels: Set[str], resolve: Callable[[str], str]) -> bool:
    """Whether `newest` is the release of another of these series: once is enough."""
    if "newest" not in kernels:
        return False
    releases = set()
    for name in kernels - {"newest"}:
        with contextlib.suppress(Unsupported):
            releases.add(resolve(name))
    return resolve("newest") in releases
