"""The HCA behind the registers: builds the parts of a card and connects them."""

from __future__ import annotations

from harness.connectx.card import CardModel
from harness.connectx.commands.cq import CqCommands
from harness.connectx.commands.eq import EqCommands
from harness.connectx.commands.fault import FaultCommands
from harness.connectx.commands.hca import HcaCommands
from harness.connectx.commands.mkey import MkeyCommands
from harness.connectx.commands.pages import PagesCommands
from harness.connectx.commands.port import PortCommands
from harness.connectx.commands.qp import QpCommands
from harness.connectx.commands.registry import Entry
from harness.connectx.commands.simple import SimpleCommands
from harness.connectx.commands.srq import SrqCommands
from harness.connectx.commands.umem import UmemCommands
from harness.connectx.datapath.dma import Transfer
from harness.connectx.datapath.requester import Requester
from harness.connectx.datapath.responder import Responder
from harness.connectx.datapath.run_queue import RunQueue
from harness.connectx.datapath.umr import Umr
from harness.connectx.device import DeviceState, GuestMemory, Interrupts, Log
from harness.connectx.faults.faults import Faults
from harness.connectx.objects.capabilities import Capabilities
from harness.connectx.objects.firmware_pages import Pages
from harness.connectx.objects.mkeys import Keys
from harness.connectx.objects.operation import Operation
from harness.connectx.objects.qps import QueuePairs
from harness.connectx.objects.queues import Completions, Events
from harness.connectx.rules.rules import InjectionRules
from harness.wire.ifc import Layouts


class Hca:
    """Composition root: only `firmware.py` sees all parts at once."""

    def __init__(
        self, model: CardModel, layouts: Layouts, memory: GuestMemory, interrupts: Interrupts, log: Log
    ) -> None:
        device = DeviceState(model, layouts, memory, interrupts, log)
        self.device = device
        self.capabilities = Capabilities(model, layouts)
        self.events = Events(device)
        self.completions = Completions(device, self.events)
        self.keys = Keys(device.objects)
        self.pages = Pages(device, self.events)
        self.rules = InjectionRules(device)
        self.faults = Faults(device, self.events, self.capabilities, self.rules, on_resume=self._resume)
        self._qps = QueuePairs(device)
        run_queue = RunQueue()
        responder = Responder(device, self.events, self.completions, self._qps, run_queue)
        self.requester = Requester(
            device,
            self.events,
            self.completions,
            self.keys,
            self._qps,
            run_queue,
            responder,
            Transfer(device, self.keys, self.rules, responder),
            Umr(device, self.keys, self.rules, self.faults),
            self.faults,
        )

    def _resume(self, operation: Operation, failed: str | None) -> None:
        """Break the loop of faults and requester: the requester is built later."""
        self.requester.resume(operation, failed)

    def commands(self) -> list[Entry]:
        """Return all firmware commands."""
        device = self.device
        groups = (
            HcaCommands(device, self.capabilities, self.pages),
            PagesCommands(self.pages),
            SimpleCommands(device),
            PortCommands(device),
            EqCommands(device, self.events, self.rules),
            UmemCommands(device),
            MkeyCommands(device, self.keys, self.faults),
            CqCommands(device, self.completions),
            SrqCommands(device),
            QpCommands(device, self._qps, self.requester, self.faults),
            FaultCommands(self.faults),
        )
        return [entry for group in groups for entry in group.entries()]

    def reset(self) -> None:
        """Reset all parts, as after power-on. Findings and counters are kept: they belong to the run."""
        self.device.reset()
        self.capabilities.reset()
        self.pages.reset()
        self.faults.clear()
        self.requester.clear()
