"""Runs the command queue: which slots, what a rule does with a command, who hears that it is done."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from harness.connectx.commands import mailbox
from harness.connectx.commands.registry import FirmwareError
from harness.connectx.transport.memory import DmaError
from harness.wire import eqe

if TYPE_CHECKING:
    from harness.connectx.hca import Hca

Execute = Callable[[bytearray, int, FirmwareError | None], bytearray]


class CommandQueue:
    """The slots of one card. `name` tells a request's command, `execute` runs one (firmware.py)."""

    def __init__(self, hca: Hca, name: Callable[[bytearray], str], execute: Execute) -> None:
        self.hca, self._name, self._execute = hca, name, execute
        self._base = 0

    def run(self, base: int, bits: int) -> None:
        """Execute the slots of a doorbell, lowest first, and report those that began with a command EQ there."""
        self._base = base
        done = 0
        for number in range(mailbox.SLOTS):
            if bits >> number & 1:
                by_event = self.hca.events.queue_for(eqe.COMMAND) is not None
                slot = self._slot(number)
                if slot.owner:
                    done |= (self._one(number, slot) and by_event) << number
                else:
                    self.hca.judge.find(
                        "bad-value", f"command slot {number}", "rung while the driver owns it"
                    )
        if done:
            self.hca.events.post(eqe.COMMAND, eqe.CommandEqe.new(vector=done))

    def _slot(self, number: int) -> mailbox.Slot:
        return mailbox.Slot(self.hca.memory.view(self._base + number * mailbox.STRIDE, mailbox.STRIDE))

    def _one(self, number: int, slot: mailbox.Slot, late: bool = False) -> bool:
        """Run a command and give its slot back; False when a rule keeps it. `late`: the rule had its way."""
        delivery = mailbox.DELIVERED
        try:
            request = mailbox.read(self.hca.memory, slot)
            deed = None if late else self.hca.rules.command(self._name(request), request)
            if deed is not None and deed.lost:
                return False
            if deed is not None and deed.delay_s:
                self.hca.timers.after(deed.delay_s, ("command", number), lambda: self._late(number))
                return False
            reply = self._execute(request, slot.out_length, deed.refused if deed else None)
            mailbox.write(self.hca.memory, slot, reply)
        except mailbox.Undelivered as problem:
            self.hca.judge.find("bad-value", "command", str(problem))
            delivery = problem.status
        except DmaError as problem:
            self.hca.judge.find("bad-address", f"{problem.address:#x}", f"mailbox: {problem}")
            delivery = mailbox.BAD_DESCRIPTOR
        mailbox.finish(slot, delivery)
        return True

    def _late(self, number: int) -> None:
        """The time of a delayed command has come."""
        by_event = self.hca.events.queue_for(eqe.COMMAND) is not None
        slot = self._slot(number)
        if slot.owner and self._one(number, slot, late=True) and by_event:
            self.hca.events.post(eqe.COMMAND, eqe.CommandEqe.new(vector=1 << number))
