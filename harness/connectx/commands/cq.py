"""Completion queues."""

from __future__ import annotations

from harness.connectx.commands.registry import Commands, command
from harness.connectx.device import DeviceState
from harness.connectx.objects import umems
from harness.connectx.objects.queues import (
    CompletionQueue,
    Completions,
    Ring,
    context_of,
    ring_of,
)
from harness.connectx.status import FirmwareError, Status
from harness.wire import cqe
from harness.wire.ifc import View

ENTRY_SIZES = {0: 64, 1: 128, 2: 128}
"""Bytes of an entry, by `cqe_sz`. Ref: Linux 7.2 include/linux/mlx5/cq.h, CQE_STRIDE_*."""

RESIZE = 1
"""op_mod of MODIFY_CQ. Ref: Linux 7.2 include/linux/mlx5/cq.h, MLX5_CQ_OPMOD_RESIZE."""


CQC_DBR_UMEM = 0x04
"""The umem of the doorbell record, which the kernel's header does not name. Ref: rdma-core 56
tests/mlx5_prm_structs.py, SwCqc."""


class CqCommands(Commands):
    """Ref: Linux 7.2 core/cq.c, drivers/infiniband/hw/mlx5/cq.c."""

    def __init__(self, device: DeviceState, completions: Completions) -> None:
        super().__init__(device)
        self._completions = completions

    def _ring(self, request: View, context: View) -> tuple[Ring, int]:
        entry_size = ENTRY_SIZES.get(context["cqe_sz"])
        if entry_size is None:
            raise FirmwareError(Status.BAD_PARAM, why=f"cqe_sz {context['cqe_sz']}")
        shift = 12 + context["log_page_size"]
        offset = context["page_offset"] * ((1 << shift) // 64)
        size = entry_size << context["log_cq_size"]
        if request.get("cq_umem_valid"):
            return umems.part(self._device.objects, *umems.named(request, "cq_umem_valid"), size), entry_size
        return ring_of(
            self._device.findings, request.bytes("pas"), context["log_page_size"], offset, size
        ), entry_size

    @command("CREATE_CQ")
    def create_cq(self, request: View, reply: View) -> None:
        """Create it; its doorbell arms it."""
        context = request.at("cq_context")
        ring, entry_size = self._ring(request, context)
        record = context["dbr_addr"]
        if context.get("dbr_umem_valid"):
            number = int.from_bytes(context.data[CQC_DBR_UMEM : CQC_DBR_UMEM + 4], "big")
            record = umems.record(self._device.objects, number, record)
        eqn = (
            context.get("c_eqn_or_apu_element")
            if context.layout.has("c_eqn_or_apu_element")
            else context["c_eqn"]
        )
        queue = CompletionQueue(
            self._device.objects.number("cq"),
            ring,
            context["log_cq_size"],
            entry_size,
            record,
            eqn & 0xFF,
            context["uar_page"],
            bool(context["oi"]),
            context_of(context),
        )
        self._device.objects.add(queue)
        reply["cqn"] = queue.number

    @command("DESTROY_CQ")
    def destroy_cq(self, request: View, reply: View) -> None:
        """Remove it; no QP may use it any more."""
        self._device.objects.remove("cq", request["cqn"])

    @command("QUERY_CQ")
    def query_cq(self, request: View, reply: View) -> None:
        """Return its context, with current counters."""
        queue: CompletionQueue = self._device.objects.get("cq", request["cqn"], "QUERY_CQ")
        context = reply.at("cq_context")
        context.data[: len(queue.context)] = queue.context
        context["producer_counter"] = queue.producer & 0xFFFFFF

    @command("MODIFY_CQ")
    def modify_cq(self, request: View, reply: View) -> None:
        """Move it to another ring, the old one ends with a RESIZE entry. Moderation has no effect here."""
        queue: CompletionQueue = self._device.objects.get("cq", request["cqn"], "MODIFY_CQ")
        if request["op_mod"] != RESIZE:
            return
        context = request.at("cq_context")
        ring, entry_size = self._ring(request, context)
        unread = self._completions.unread(queue)
        if unread >= min(1 << queue.log_size, 1 << context["log_cq_size"]):
            raise FirmwareError(Status.BAD_SIZE_OUTS_CQES, why=f"{unread} entries are not read yet")
        self._completions.push(queue, cqe.Cqe.new(opcode=cqe.RESIZE))
        queue.ring, queue.entry_size, queue.log_size = ring, entry_size, context["log_cq_size"]
        stored = self._device.layouts["cqc"].view(queue.context)
        for name in ("log_cq_size", "page_offset", "log_page_size", "cqe_sz"):
            stored[name] = context[name]
