"""Shared receive queues: an RMP for those of verbs, an XRC SRQ for XRC."""

from __future__ import annotations

from harness.connectx.commands.registry import Commands, command
from harness.connectx.objects.queues import Ring, context_of, ring_of
from harness.connectx.objects.srqs import SharedQueue
from harness.wire.ifc import View


class SrqCommands(Commands):
    """Ref: Linux 7.2 drivers/infiniband/hw/mlx5/srq_cmd.c."""

    def _ring(self, pas: memoryview, log_page_size: int, page_offset: int, size: int) -> Ring:
        offset = page_offset << (log_page_size + 12 - 6)
        return ring_of(self._device.findings, pas, log_page_size, offset, size)

    def _get(self, number: int, user: str) -> SharedQueue:
        queue: SharedQueue = self._device.objects.get("srq", number, user)
        return queue

    @staticmethod
    def _query(queue: SharedQueue, context: View, limit: str) -> None:
        context.data[: len(queue.context)] = queue.context
        context[limit] = queue.limit

    @command("CREATE_RMP")
    def create_rmp(self, request: View, reply: View) -> None:
        """Create an SRQ of verbs."""
        context = request.at("ctx")
        work = context.at("wq")
        stride, log_size = 1 << work["log_wq_stride"], work["log_wq_sz"]
        ring = self._ring(work.bytes("pas"), work["log_wq_pg_sz"], work["page_offset"], stride << log_size)
        queue = SharedQueue(
            self._device.objects.number("srq"),
            ring,
            log_size,
            stride,
            work["dbr_addr"],
            work["pd"],
            work["lwm"],
            context_of(context),
        )
        self._device.objects.add(queue)
        reply["rmpn"] = queue.number

    @command("MODIFY_RMP")
    def modify_rmp(self, request: View, reply: View) -> None:
        """Arm the low watermark."""
        queue = self._get(request["rmpn"], "MODIFY_RMP")
        if request["bitmask.lwm"]:
            queue.limit = request["ctx.wq.lwm"]
            self._device.layouts["rmpc"].view(queue.context)["wq.lwm"] = queue.limit

    @command("QUERY_RMP")
    def query_rmp(self, request: View, reply: View) -> None:
        """Return its context."""
        self._query(self._get(request["rmpn"], "QUERY_RMP"), reply.at("rmp_context"), "wq.lwm")

    @command("DESTROY_RMP")
    def destroy_rmp(self, request: View, reply: View) -> None:
        """Remove it; no QP may use it any more."""
        self._device.objects.remove("srq", request["rmpn"])

    @command("CREATE_XRC_SRQ")
    def create_xrc_srq(self, request: View, reply: View) -> None:
        """Create an SRQ of XRC, which has a CQ and a user index of its own."""
        context = request.at("xrc_srq_context_entry")
        stride, log_size = 1 << (context["log_rq_stride"] + 4), context["log_xrc_srq_size"]
        ring = self._ring(
            request.bytes("pas"), context["log_page_size"], context["page_offset"], stride << log_size
        )
        queue = SharedQueue(
            self._device.objects.number("srq"),
            ring,
            log_size,
            stride,
            context["db_record_addr_h"] << 32 | context["db_record_addr_l"] << 2,
            context["pd"],
            context["lwm"],
            context_of(context),
            cqn=context["cqn"],
            xrcd=context["xrcd"],
            user_index=context["user_index"],
        )
        self._device.objects.add(queue)
        reply["xrc_srqn"] = queue.number

    @command("QUERY_XRC_SRQ")
    def query_xrc_srq(self, request: View, reply: View) -> None:
        """Return its context."""
        queue = self._get(request["xrc_srqn"], "QUERY_XRC_SRQ")
        self._query(queue, reply.at("xrc_srq_context_entry"), "lwm")

    @command("ARM_XRC_SRQ")
    def arm_xrc_srq(self, request: View, reply: View) -> None:
        """Arm the low watermark."""
        self._get(request["xrc_srqn"], "ARM_XRC_SRQ").limit = request["lwm"]

    @command("DESTROY_XRC_SRQ")
    def destroy_xrc_srq(self, request: View, reply: View) -> None:
        """Remove it; no QP may use it any more."""
        self._device.objects.remove("srq", request["xrc_srqn"])
