"""Shared receive queues: RMP for those of verbs, XRC SRQ for XRC."""

from __future__ import annotations

from typing import TYPE_CHECKING

from harness.connectx.commands.registry import (
    Commands,
    command,
)
from harness.connectx.objects.queues import (
    context_of,
    ring_of,
)
from harness.connectx.objects.srqs import SharedQueue

if TYPE_CHECKING:
    from harness.wire.ifc import View


class SrqCommands(Commands):
    """Ref: Linux 7.2 drivers/infiniband/hw/mlx5/srq_cmd.c."""

    @command("CREATE_RMP")
    def create_rmp(self, request: View, reply: View) -> None:
        """An SRQ as verbs know it."""
        context = request.at("ctx")
        work = context.at("wq")
        stride, log_size = 1 << work["log_wq_stride"], work["log_wq_sz"]
        log_page = work["log_wq_pg_sz"]
        ring = ring_of(
            self.hca,
            work.bytes("pas"),
            log_page,
            work["page_offset"] << (log_page + 12 - 6),
            stride << log_size,
        )
        queue = SharedQueue(
            self.hca.judge.number("srq"),
            ring,
            log_size,
            stride,
            work["dbr_addr"],
            work["pd"],
            work["lwm"],
            context_of(context),
        )
        self.hca.judge.add(queue)
        reply["rmpn"] = queue.number

    @command("MODIFY_RMP")
    def modify_rmp(self, request: View, reply: View) -> None:
        """The low watermark is armed."""
        queue: SharedQueue = self.hca.judge.get("srq", request["rmpn"], "MODIFY_RMP")
        if request["bitmask.lwm"]:
            queue.limit = request["ctx.wq.lwm"]
            self.hca.layouts["rmpc"].view(queue.context)["wq.lwm"] = queue.limit

    @command("QUERY_RMP")
    def query_rmp(self, request: View, reply: View) -> None:
        """Its context."""
        queue: SharedQueue = self.hca.judge.get("srq", request["rmpn"], "QUERY_RMP")
        context = reply.at("rmp_context")
        context.data[: len(queue.context)] = queue.context
        context["wq.lwm"] = queue.limit

    @command("DESTROY_RMP")
    def destroy_rmp(self, request: View, reply: View) -> None:
        """No QP may use it any more."""
        self.hca.judge.remove("srq", request["rmpn"])

    @command("CREATE_XRC_SRQ")
    def create_xrc_srq(self, request: View, reply: View) -> None:
        """It has a CQ and a user index of its own."""
        context = request.at("xrc_srq_context_entry")
        stride, log_size = 1 << (context["log_rq_stride"] + 4), context["log_xrc_srq_size"]
        log_page = context["log_page_size"]
        ring = ring_of(
            self.hca,
            request.bytes("pas"),
            log_page,
            context["page_offset"] << (log_page + 12 - 6),
            stride << log_size,
        )
        record = context["db_record_addr_h"] << 32 | context["db_record_addr_l"] << 2
        queue = SharedQueue(
            self.hca.judge.number("srq"),
            ring,
            log_size,
            stride,
            record,
            context["pd"],
            context["lwm"],
            context_of(context),
            cqn=context["cqn"],
            xrcd=context["xrcd"],
            user_index=context["user_index"],
        )
        self.hca.judge.add(queue)
        reply["xrc_srqn"] = queue.number

    @command("QUERY_XRC_SRQ")
    def query_xrc_srq(self, request: View, reply: View) -> None:
        """Its context."""
        queue: SharedQueue = self.hca.judge.get("srq", request["xrc_srqn"], "QUERY_XRC_SRQ")
        context = reply.at("xrc_srq_context_entry")
        context.data[: len(queue.context)] = queue.context
        context["lwm"] = queue.limit

    @command("ARM_XRC_SRQ")
    def arm_xrc_srq(self, request: View, reply: View) -> None:
        """The low watermark is armed."""
        queue: SharedQueue = self.hca.judge.get("srq", request["xrc_srqn"], "ARM_XRC_SRQ")
        queue.limit = request["lwm"]

    @command("DESTROY_XRC_SRQ")
    def destroy_xrc_srq(self, request: View, reply: View) -> None:
        """No QP may use it any more."""
        self.hca.judge.remove("srq", request["xrc_srqn"])
