"""The device under test on this machine: how each kind of case runs on it, and its capabilities."""

from __future__ import annotations

from dataclasses import replace
from typing import Dict, Optional

from harness.guest.cases import run_case, run_scenario
from harness.guest.errors import Unsupported
from harness.guest.kmod import odpnl, session
from harness.guest.rdma import mlx5
from harness.guest.rdma.nldev import Device, NlDev
from harness.guest.scenarios import SCENARIOS
from harness.guest.trace.tracer import Tracer
from harness.values.answer import Answer
from harness.values.case import Case

SOFT_ROCE = "soft-roce"


class Target:
    """A device, named as on the host, with a netlink socket and the tracer of its driver, if there is one."""

    def __init__(self, device: str, nldev: NlDev, tracer: Optional[Tracer]) -> None:
        self.device = device
        self.nldev = nldev
        self.tracer = tracer

    def wait(self) -> None:
        """Wait until a card's driver has the device; Unsupported or OSError if it does not get it."""
        if self.device != SOFT_ROCE:
            mlx5.wait(self.nldev)

    def run(self, case: Case) -> Answer:
        """Run a case on the device, by the name that the device has on this machine."""
        scenario = SCENARIOS.get(case.workload.operation)
        if self.device != SOFT_ROCE:
            return self._run_on_card(case)
        if scenario is None:
            return run_case(case, self.tracer, self.nldev)
        if scenario.card_only:
            return Answer(case.id, "unsupported", f"{case.workload.operation} needs a card")
        return run_scenario(case, self.nldev, self.nldev.device(case.device))

    def _run_on_card(self, case: Case) -> Answer:
        try:
            card = mlx5.wait(self.nldev)
        except (Unsupported, OSError) as error:
            return Answer(case.id, "failed", str(error))
        if case.workload.operation in SCENARIOS:
            self.untrace()
            return run_scenario(case, self.nldev, card)
        case = replace(case, device=card.name)
        if case.module is not None:
            return self._run_with_module(case, card)
        if case.workload.local.odp or case.workload.remote.odp:
            mlx5.warm(card)
        return run_case(case, self.tracer, self.nldev)

    def _run_with_module(self, case: Case, card: Device) -> Answer:
        """Set the module up first: it can have an event queue of its own only before mlx5_ib made one."""
        try:
            module = session.Module(case, card)
        except Unsupported as error:
            return Answer(case.id, "unsupported", str(error))
        except OSError as error:
            return Answer(case.id, "failed", f"{session.NAME}: {error}")
        try:
            mlx5.warm(card, module.use.mode != "own" and case.workload.remote.odp)
            answer = run_case(case, self.tracer, self.nldev, module.connected)
        finally:
            report = module.close()
        return replace(answer, module=report)

    def capabilities(self) -> Dict[str, str]:
        """Return the device's ODP capabilities as facts; `device` is its name on this machine.

        If the payload has the kernel module, its view of a card's capabilities is added, with the prefix `module.`.
        """
        from harness.guest.rdma.connection import odp_capabilities

        if self.device == SOFT_ROCE:
            return {"device": self.device, **odp_capabilities(self.device)}
        card = mlx5.wait(self.nldev)
        facts = {"device": card.name, **odp_capabilities(card.name)}
        if session.load():
            with odpnl.Family() as family:
                facts.update(
                    {f"module.{name}": words for name, words in session.caps_of(family, card).items()}
                )
        return facts

    def untrace(self) -> None:
        """Detach the probes: a driver with a probe in it cannot be unloaded."""
        if self.tracer is not None:
            self.tracer.close()
            self.tracer = None

    def close(self) -> None:
        """Detach the probes; the device and the swap stay."""
        self.untrace()
        self.nldev.close()
