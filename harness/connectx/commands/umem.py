"""User memory by number, for DEVX."""

from __future__ import annotations

from typing import TYPE_CHECKING

from harness.connectx.commands.registry import (
    Commands,
    command,
)
from harness.connectx.objects.queues import (
    PAGE_SHIFT,
    ring_of,
)
from harness.connectx.objects.umems import Umem

if TYPE_CHECKING:
    from harness.wire.ifc import View


class UmemCommands(Commands):
    """Ref: Linux 7.2 drivers/infiniband/hw/mlx5/devx.c, devx_umem_reg_cmd_alloc."""

    @command("CREATE_UMEM")
    def create_umem(self, request: View, reply: View) -> None:
        """Its pages, from an offset in the first."""
        umem = request.at("umem")
        log_page_size, offset = umem["log_page_size"], umem["page_offset"]
        size = (umem["num_of_mtt"] << PAGE_SHIFT + log_page_size) - offset
        ring = ring_of(self.hca, umem.bytes("mtt"), log_page_size, offset, size)
        made = self.hca.judge.add(Umem(self.hca.judge.number("umem"), ring, umem.bytes("mtt")[7] & 3))
        reply["umem_id"] = made.number

    @command("DESTROY_UMEM")
    def destroy_umem(self, request: View, reply: View) -> None:
        """Nothing may lie in it any more."""
        self.hca.judge.remove("umem", request["umem_id"])
