"""Pages lent to the card."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

from harness.connectx.commands.registry import (
    Commands,
    FirmwareError,
    Status,
    command,
)

if TYPE_CHECKING:
    from harness.wire.ifc import View

CANNOT_GIVE, GIVE, TAKE = 0, 1, 2
"""op_mod of MANAGE_PAGES. Ref: Linux 7.2 core/pagealloc.c, MLX5_PAGES_*."""


class PagesCommands(Commands):
    """Ref: Linux 7.2 core/pagealloc.c."""

    @command("QUERY_PAGES")
    def query_pages(self, request: View, reply: View) -> None:
        """How many the card wants at boot and at init."""
        reply["function_id"] = request["function_id"]
        reply["num_pages"] = self.hca.pages.wanted(request["op_mod"])

    @command("MANAGE_PAGES")
    def manage_pages(self, request: View, reply: View) -> None:
        """Give, take back, or say that there are none."""
        count, action = request["input_num_entries"], request["op_mod"]
        if action == GIVE:
            self.hca.pages.give(request.bytes("pas"), count)
        elif action == TAKE:
            room = reply.bytes("pas")
            taken = self.hca.pages.take(min(count, len(room) // 8))
            struct.pack_into(f">{len(taken)}Q", room, 0, *taken)
            reply["output_num_entries"] = len(taken)
        elif action == CANNOT_GIVE:
            self.hca.pages.refused()
        else:
            raise FirmwareError(Status.BAD_PARAM, why=f"op_mod {action}")
