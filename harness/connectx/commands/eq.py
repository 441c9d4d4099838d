"""Event queues."""

from __future__ import annotations

from harness.connectx.commands.registry import Commands, command
from harness.connectx.device import DeviceState
from harness.connectx.objects.queues import (
    EventQueue,
    Events,
    context_of,
    ring_of,
)
from harness.connectx.rules.rules import InjectionRules
from harness.connectx.status import FirmwareError, Status
from harness.wire import eqe
from harness.wire.ifc import View


class EqCommands(Commands):
    """Ref: Linux 7.2 core/eq.c."""

    def __init__(self, device: DeviceState, events: Events, rules: InjectionRules) -> None:
        super().__init__(device)
        self._events, self._rules = events, rules

    @command("CREATE_EQ")
    def create_eq(self, request: View, reply: View) -> None:
        """Create it; its entries begin owned by the card, so the owner bit of the first pass is 0."""
        context = request.at("eq_context_entry")
        log_size = context["log_eq_size"]
        if context["intr"] >= self._device.model.msix_vectors:
            raise FirmwareError(Status.BAD_PARAM, why=f"vector {context['intr']}")
        ring = ring_of(
            self._device.findings,
            request.bytes("pas"),
            context["log_page_size"],
            context["page_offset"] * 64,
            eqe.SIZE << log_size,
        )
        mask = self._mask(request)
        if mask >> eqe.PAGE_FAULT & 1 and self._events.queue_for(eqe.PAGE_FAULT) is not None:
            override = self._rules.second_queue()
            self._events.first_wins |= override.first_wins
            if override.refused is not None:
                raise override.refused
        queue = EventQueue(
            self._device.objects.number("eq"),
            ring,
            log_size,
            mask,
            context["intr"],
            context["uar_page"],
            bytes(context_of(context)),
        )
        self._device.objects.add(queue)
        reply["eq_number"] = queue.number

    @staticmethod
    def _mask(request: View) -> int:
        """Return the event bitmask, a bit per type: of its four words the last holds the lowest types.

        Linux 6.1 has two words less: the length is the header's. Ref: Linux 7.2 core/eq.c create_map_eq.
        """
        words = request.bytes("event_bitmask")
        parts = [int.from_bytes(words[i : i + 8], "big") for i in range(0, len(words), 8)]
        return sum(part << 64 * i for i, part in enumerate(parts))

    @command("DESTROY_EQ")
    def destroy_eq(self, request: View, reply: View) -> None:
        """Remove it; no event comes any more."""
        self._device.objects.remove("eq", request["eq_number"])

    @command("QUERY_EQ")
    def query_eq(self, request: View, reply: View) -> None:
        """Return its context, with current counters, and the events that it gets.

        One that does not exist is no finding: a driver may look for the owner of an event that way.
        """
        number = request["eq_number"]
        queue = self._device.objects.table("eq").get(number)
        if queue is None:
            raise FirmwareError(Status.BAD_RES, why=f"no eq {number:#x}")
        context = reply.at("eq_context_entry")
        context.data[: len(queue.context)] = queue.context
        context["producer_counter"] = queue.producer & 0xFFFFFF
        context["consumer_counter"] = queue.consumer
        reply["event_bitmask"] = queue.mask & (1 << 64) - 1
