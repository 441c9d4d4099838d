"""Command queue: run the slots of a doorbell, as rules say, and report those that are done."""

from __future__ import annotations

from collections.abc import Callable

from harness.connectx.commands import mailbox
from harness.connectx.device import DeviceState
from harness.connectx.objects.queues import Events
from harness.connectx.rules.rules import InjectionRules
from harness.connectx.status import FirmwareError
from harness.connectx.transport.memory import DmaError
from harness.wire import eqe

Execute = Callable[[bytearray, int, FirmwareError | None], bytearray]


class CommandQueue:
    """Slots of one card. `name` returns the name of a request's command, `execute` runs one (firmware.py)."""

    def __init__(
        self,
        device: DeviceState,
        events: Events,
        rules: InjectionRules,
        name: Callable[[bytearray], str],
        execute: Execute,
    ) -> None:
        self._device, self._events, self._rules = device, events, rules
        self._name, self._execute = name, execute
        self._base = 0

    def run(self, base: int, bits: int) -> None:
        """Execute the slots of a doorbell, lowest first; report those that began with a command EQ present."""
        self._base = base
        done = 0
        for number in range(mailbox.SLOTS):
            if bits >> number & 1:
                by_event = self._events.queue_for(eqe.COMMAND) is not None
                slot = self._slot(number)
                if slot.owner:
                    done |= (self._one(number, slot) and by_event) << number
                else:
                    self._device.findings.report(
                        "bad-value", f"command slot {number}", "rung while the driver owns it"
                    )
        if done:
            self._events.post(eqe.COMMAND, eqe.CommandEqe.new(vector=done))

    def _slot(self, number: int) -> mailbox.Slot:
        return mailbox.Slot(self._device.memory.view(self._base + number * mailbox.STRIDE, mailbox.STRIDE))

    def _one(self, number: int, slot: mailbox.Slot, late: bool = False) -> bool:
        """Run a command and return its slot; False when a rule keeps it.

        `late`: already delayed by a rule; do not match again.
        """
        delivery = mailbox.DELIVERED
        try:
            request = mailbox.read(self._device.memory, slot)
            override = None if late else self._rules.command(self._name(request), request)
            if override is not None and override.lost:
                return False
            if override is not None and override.delay_s:
                owner = ("command", number)
                self._device.timers.after(override.delay_s, owner, lambda: self._run_late(number))
                return False
            reply = self._execute(request, slot.out_length, override.refused if override else None)
            mailbox.write(self._device.memory, slot, reply)
        except mailbox.Undelivered as problem:
            self._device.findings.report("bad-value", "command", str(problem))
            delivery = problem.status
        except DmaError as problem:
            self._device.findings.report("bad-address", f"{problem.address:#x}", f"mailbox: {problem}")
            delivery = mailbox.BAD_DESCRIPTOR
        mailbox.finish(slot, delivery)
        return True

    def _run_late(self, number: int) -> None:
        """Run a delayed command."""
        by_event = self._events.queue_for(eqe.COMMAND) is not None
        slot = self._slot(number)
        if slot.owner and self._one(number, slot, late=True) and by_event:
            self._events.post(eqe.COMMAND, eqe.CommandEqe.new(vector=1 << number))
