"""Queue pairs by command; `objects/qps.py` has their states."""

from __future__ import annotations

from harness.connectx.commands.registry import Commands, Entry, Handler, command
from harness.connectx.datapath.requester import Requester
from harness.connectx.device import DeviceState
from harness.connectx.faults.faults import Faults
from harness.connectx.objects import umems
from harness.connectx.objects.qps import (
    TRANSITIONS,
    QueuePair,
    QueuePairs,
    ring_size,
)
from harness.connectx.objects.queues import ring_of
from harness.wire.ifc import View

LAYOUTS = {"2ERR_QP": "qp_2err", "2RST_QP": "qp_2rst", "SQD_RTS_QP": "sqd2rts_qp"}
"""Structures that are not named after their command. Ref: Linux 7.2 include/linux/mlx5/mlx5_ifc.h."""


QPC_DBR_UMEM = 0xE4
"""The umem of the doorbell record, which the kernel's header does not name. Ref: rdma-core 56
tests/mlx5_prm_structs.py, SwQpc."""


class QpCommands(Commands):
    """Ref: Linux 7.2 drivers/infiniband/hw/mlx5/qpc.c."""

    def __init__(self, device: DeviceState, qps: QueuePairs, requester: Requester, faults: Faults) -> None:
        super().__init__(device)
        self._qps, self._requester, self._faults = qps, requester, faults

    def entries(self) -> list[Entry]:
        """Return the decorated commands and one per transition."""
        entries = super().entries()
        for name in TRANSITIONS:
            entries.append(Entry(name, LAYOUTS.get(name, name.lower()), self._transition(name)))
        return entries

    def _transition(self, name: str) -> Handler:
        carries = bool(TRANSITIONS[name][2]) or name in ("RTS2RTS_QP", "SQERR2RTS_QP", "SQD_RTS_QP")

        def run(request: View, reply: View) -> None:
            qp: QueuePair = self._device.objects.get("qp", request["qpn"], name)
            optional = request["opt_param_mask"] if carries else 0
            change = request.at("qpc") if carries else qp.context
            self._qps.modify(qp, name, change, optional)
            self._requester.entered(qp)

        return run

    @command("CREATE_QP")
    def create_qp(self, request: View, reply: View) -> None:
        """Create it in RST, with both rings: receive queue first."""
        layout = self._device.layouts["qpc"]
        context = layout.view(bytearray(request.bytes("qpc")))
        size = ring_size(context)
        if request.get("wq_umem_valid"):
            ring = umems.part(self._device.objects, *umems.named(request, "wq_umem_valid"), size)
        else:
            offset = context["page_offset"] << (context["log_page_size"] + 12 - 6)
            ring = ring_of(
                self._device.findings, request.bytes("pas"), context["log_page_size"], offset, size
            )
        if context.get("dbr_umem_valid"):
            number = int.from_bytes(context.data[QPC_DBR_UMEM : QPC_DBR_UMEM + 4], "big")
            context["dbr_addr"] = umems.record(self._device.objects, number, context["dbr_addr"])
        qp = QueuePair(self._device.objects.number("qp"), context, ring)
        qp.refresh()
        self._device.objects.add(qp)
        reply["qpn"] = qp.number

    @command("DESTROY_QP")
    def destroy_qp(self, request: View, reply: View) -> None:
        """Remove it and drop its work."""
        qp: QueuePair = self._device.objects.remove("qp", request["qpn"])
        self._requester.forget(qp)
        self._faults.object_gone("qp", qp.number)

    @command("QUERY_QP")
    def query_qp(self, request: View, reply: View) -> None:
        """Return its current context."""
        qp: QueuePair = self._device.objects.get("qp", request["qpn"], "QUERY_QP")
        context = reply.at("qpc")
        size = min(len(context.data), len(qp.context.data))
        context.data[:size] = qp.context.data[:size]
        context["state"] = qp.state
        context["hw_sq_wqebb_counter"] = qp.sent
