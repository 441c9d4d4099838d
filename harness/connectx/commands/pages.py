"""Firmware pages by command."""

from __future__ import annotations

import struct

from harness.connectx.commands.registry import Commands, command
from harness.connectx.objects.firmware_pages import Pages
from harness.connectx.status import FirmwareError, Status
from harness.wire.ifc import View

CANNOT_GIVE, GIVE, TAKE = 0, 1, 2
"""op_mod of MANAGE_PAGES. Ref: Linux 7.2 core/pagealloc.c, MLX5_PAGES_*."""


class PagesCommands(Commands):
    """Ref: Linux 7.2 core/pagealloc.c."""

    def __init__(self, pages: Pages) -> None:
        self._pages = pages

    @command("QUERY_PAGES")
    def query_pages(self, request: View, reply: View) -> None:
        """Return how many pages the card needs, at boot and at init."""
        reply["function_id"] = request["function_id"]
        reply["num_pages"] = self._pages.ask(request["op_mod"])

    @command("MANAGE_PAGES")
    def manage_pages(self, request: View, reply: View) -> None:
        """Give pages, take them back, or refuse a request for them."""
        count, action = request["input_num_entries"], request["op_mod"]
        if action == GIVE:
            self._pages.give(request.bytes("pas"), count)
        elif action == TAKE:
            room = reply.bytes("pas")
            taken = self._pages.take(min(count, len(room) // 8))
            struct.pack_into(f">{len(taken)}Q", room, 0, *taken)
            reply["output_num_entries"] = len(taken)
        elif action == CANNOT_GIVE:
            self._pages.refused()
        else:
            raise FirmwareError(Status.BAD_PARAM, why=f"op_mod {action}")
