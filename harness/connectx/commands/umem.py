"""User memory by number (umem), for DEVX."""

from __future__ import annotations

from harness.connectx.commands.registry import Commands, command
from harness.connectx.objects.queues import (
    PAGE_SHIFT,
    ring_of,
)
from harness.connectx.objects.umems import Umem
from harness.wire.ifc import View


class UmemCommands(Commands):
    """Ref: Linux 7.2 drivers/infiniband/hw/mlx5/devx.c, devx_umem_reg_cmd_alloc."""

    @command("CREATE_UMEM")
    def create_umem(self, request: View, reply: View) -> None:
        """Register pages, from an offset in the first."""
        umem = request.at("umem")
        log_page_size, offset = umem["log_page_size"], umem["page_offset"]
        size = (umem["num_of_mtt"] << PAGE_SHIFT + log_page_size) - offset
        ring = ring_of(self._device.findings, umem.bytes("mtt"), log_page_size, offset, size)
        new = self._device.objects.add(
            Umem(self._device.objects.number("umem"), ring, umem.bytes("mtt")[7] & 3)
        )
        reply["umem_id"] = new.number

    @command("DESTROY_UMEM")
    def destroy_umem(self, request: View, reply: View) -> None:
        """Remove it; nothing may use it any more."""
        self._device.objects.remove("umem", request["umem_id"])
