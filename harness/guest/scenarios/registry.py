"""The table of scenarios: workloads with a script of their own, by the `operation` that a plan names.

    @scenario("kill")
    def kill(case: Case) -> List[int]:
        ...

The sentence on each scenario is in `values.case.OPERATIONS`, for plans and docs to use as well.
"""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Callable, Dict, List, NamedTuple, Optional, TypeVar

from harness.guest.errors import Unsupported, WorkFailed
from harness.guest.rdma.nldev import Device, NlDev
from harness.values.case import OPERATIONS, Case

MAX_TIMES = 1000

Script = Callable[..., List[int]]
"""Run a case; return how long each round took, in nanoseconds."""
_Script = TypeVar("_Script", bound=Script)


class Scenario(NamedTuple):
    """One entry of SCENARIOS.

    `script` takes the case; with `device` also the netlink socket and the device. `odp`: the device must support
    on-demand paging. `card_only`: soft-RoCE cannot run it. `cold`: no round is run before objects are counted.
    """

    text: str
    script: Script
    device: bool
    odp: bool
    card_only: bool
    cold: bool

    def run(self, case: Case, nldev: NlDev, device: Device) -> List[int]:
        """Run a case on the device; Unsupported if the device lacks on-demand paging."""
        if self.odp:
            from harness.guest.rdma.connection import odp_problem

            problem = odp_problem(device.name, "write")
            if problem:
                raise Unsupported(problem)
        case = replace(case, device=device.name)
        return self.script(case, nldev, device) if self.device else self.script(case)


SCENARIOS: Dict[str, Scenario] = {}


def scenario(
    name: str, *, device: bool = False, odp: bool = True, card_only: bool = False, cold: bool = False
) -> Callable[[_Script], _Script]:
    """Register a function as the scenario `name`, a key of OPERATIONS; see Scenario for the options."""

    def register(script: _Script) -> _Script:
        SCENARIOS[name] = Scenario(OPERATIONS[name], script, device, odp, card_only, cold)
        return script

    return register


def timed_rounds(case: Case, one_round: Callable[[int], Optional[str]], max_tries: int = 1) -> List[int]:
    """Run the case's rounds, numbered from 1; return how long each took, in nanoseconds.

    With `seconds` rounds go on for that long. Of more than MAX_TIMES rounds every second, fourth... time is kept.
    `one_round` returns None, or why it missed the moment it was to test: then the round is repeated, up to
    `max_tries` times in all, and only its last try is timed. WorkFailed if all of them missed.
    """
    times: Dict[int, int] = {}
    number, stride = 0, 1
    deadline = time.monotonic() + case.workload.seconds
    while number < case.workload.rounds or time.monotonic() < deadline:
        number += 1
        for _ in range(max_tries):
            began = time.monotonic_ns()
            missed = one_round(number)
            took_ns = time.monotonic_ns() - began
            if missed is None:
                break
        else:
            raise WorkFailed(f"round {number}: {max_tries} tries missed, the last one since {missed}")
        if number % stride == 0:
            times[number] = took_ns
        if len(times) > MAX_TIMES:
            stride *= 2
            times = {at: spent for at, spent in times.items() if at % stride == 0}
    return list(times.values())
