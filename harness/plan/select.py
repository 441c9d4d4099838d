"""Select cases of a plan: kernels, devices, a cut of the matrix, seeds."""

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
    """Yield the cases of a plan under --kernel (default: newest), --device and --time."""
    kernels = plan.kernels if "all" in option.kernel else local_tree.distinct(option.kernel or ("newest",))
    devices = tuple(device for device in plan.devices if not option.device or device in option.device)
    if not devices:
        return
    cases = list(plan.cases(kernels, option.time, devices))
    if option.icount:
        cases = [replace(one, clock="icount") if TRAITS[one.case.device].plugged else one for one in cases]
    for kernel, device in itertools.product(kernels, devices):
        same = [planned for planned in cases if (planned.kernel, planned.case.device) == (kernel, device)]
        for planned in spread(same, option.cut):
            # Injection rules decide what happens when: a later start adds little.
            once = option.ruled_once and planned.case.rules
            yield from seeded(planned, min(1, option.seeds) if once else option.seeds)


def spread(cases: Sequence[Planned], limit: int) -> Sequence[Planned]:
    """Return up to `limit` cases (0: all), as far apart in their matrix as possible, the first always."""
    if not limit or len(cases) <= limit:
        return cases
    return [cases[number * len(cases) // limit] for number in range(limit)]


def seeded(planned: Planned, seeds: int) -> Iterator[Planned]:
    """Yield the case, or one for each of `seeds` start offsets: each starts some instructions later."""
    if not seeds:
        yield planned
    for seed in range(seeds):
        case = replace(planned.case, id=f"{planned.case.id}/seed={seed}", seed=planned.case.seed + seed)
        yield replace(planned, case=case)


def newest_is_another(kernels: Set[str], resolve: Callable[[str], str]) -> bool:
    """Return whether `newest` is the release of another of these series, which is run anyway."""
    if "newest" not in kernels:
        return False
    releases = set()
    for name in kernels - {"newest"}:
        with contextlib.suppress(Unsupported):
            releases.add(resolve(name))
    return resolve("newest") in releases
