"""PAGE_FAULT_RESUME, in its three forms."""

from __future__ import annotations

from harness.connectx.commands.registry import Commands, command
from harness.connectx.faults.faults import Faults
from harness.wire import y2015
from harness.wire.ifc import View

UNION = "page_fault_info.trans_page_fault_info."
MEMORY = "page_fault_info.mem_page_fault_info."


class FaultCommands(Commands):
    """Ref: Linux 7.2 drivers/infiniband/hw/mlx5/odp.c mlx5_ib_page_fault_resume; 6.1 has no union."""

    def __init__(self, faults: Faults) -> None:
        self._faults = faults

    @command("PAGE_FAULT_RESUME")
    def page_fault_resume(self, request: View, reply: View) -> None:
        """Resume a fault: the driver has made pages present, or could not (error)."""
        faults = self._faults
        if faults.scheme == "memory":
            token = request[MEMORY + "fault_token_47_32"] << 32 | request[MEMORY + "fault_token_31_0"]
            faults.resume(token, None, bool(request[MEMORY + "error"]))
            return
        prefix = UNION if request.layout.has("page_fault_info") else ""
        kind, error = request[prefix + "page_fault_type"], bool(request[prefix + "error"])
        if faults.scheme == "2015":
            faults.resume(kind << y2015.QPN_BITS | request[prefix + "wq_number"], kind, error)
        else:
            faults.resume(request[prefix + ("fault_token" if prefix else "token")], kind, error)
