"""Two RC queue pairs of one process on one device, connected to each other (pyverbs)."""

from __future__ import annotations

import os
import time
from typing import Any, Dict, List, Optional

import pyverbs.enums as e
from pyverbs.addr import AHAttr, GlobalRoute
from pyverbs.cq import CQ
from pyverbs.device import Context
from pyverbs.pd import PD
from pyverbs.pyverbs_error import PyverbsError
from pyverbs.qp import QP, QPAttr, QPCap, QPInitAttr

from harness.guest.errors import (
    Unsupported,
    WorkFailed,
)
from harness.guest.rdma import extended
from harness.guest.rdma.registration import access_for

# Raised by a failing call of pyverbs or of the kernel.
VERBS_ERRORS = (PyverbsError, OSError)

PORT = 1
# Work requests in flight at once: one and its receive; the queues are a little longer.
QUEUE_LENGTH = 16
# Local ack timeout 4.096 us * 2**18 = 1.07 s: a slow fault is no retransmission, which would fault twice.
ACK_TIMEOUT = 18
_EAGER_POLLS = 4000
_NAP_S = 0.0005
_MAX_GIDS = 64
# Ref: Linux 7.3 include/rdma/ib_verbs.h, enum ib_odp_transport_cap_bits; pyverbs does not name them.
_ODP_SUPPORT_FLUSH = 1 << 6
_ODP_SUPPORT_ATOMIC_WRITE = 1 << 7
_IPV4_GID = "0000:0000:0000:0000:0000:ffff:"
_MTUS = {
    256: e.IBV_MTU_256,
    512: e.IBV_MTU_512,
    1024: e.IBV_MTU_1024,
    2048: e.IBV_MTU_2048,
    4096: e.IBV_MTU_4096,
}


class Connection:
    """Context, PD, CQ and two QPs, each connected to the other; `requester` posts the work requests.

    A `context` and a `pd` of it that are passed in are used and stay open. The queue pairs can post the `operation`,
    which some queue pairs cannot.
    """

    def __init__(
        self,
        device: str,
        mtu_bytes: int,
        timeout_s: float,
        context: Optional[Context] = None,
        pd: Optional[PD] = None,
        operation: str = "",
    ) -> None:
        self._operation = operation
        self._timeout_ns = int(timeout_s * 1e9)
        self._open: List[Any] = []
        try:
            self.context = context or self._keep(Context(name=device))
            self._check_port(device, mtu_bytes)
            self.pd = pd or self._keep(PD(self.context))
            self.cq = self._keep(CQ(self.context, 4 * QUEUE_LENGTH))
            self.requester = self._keep(self._queue_pair())
            self.responder = self._keep(self._queue_pair())
            self._connect(self.requester, self.responder, mtu_bytes)
            self._connect(self.responder, self.requester, mtu_bytes)
        except BaseException:
            self.close()
            raise

    def _check_port(self, device: str, mtu_bytes: int) -> None:
        port = self.context.query_port(PORT)
        if mtu_bytes not in _MTUS or _MTUS[mtu_bytes] > port.active_mtu:
            largest = 128 << port.active_mtu
            raise Unsupported(f"{device} carries packets of up to {largest} bytes, not of {mtu_bytes}")

    def _keep(self, verbs_object: Any) -> Any:
        self._open.append(verbs_object)
        return verbs_object

    def _queue_pair(self) -> Any:
        cap = QPCap(max_send_wr=QUEUE_LENGTH, max_recv_wr=QUEUE_LENGTH, max_send_sge=1, max_recv_sge=1)
        if self._operation in extended.OPERATIONS:
            return extended.queue_pair(self.context, self.pd, self.cq, cap, self._operation)
        return QP(self.pd, QPInitAttr(qp_type=e.IBV_QPT_RC, scq=self.cq, rcq=self.cq, cap=cap))

    def _connect(self, mine: Any, peer: Any, mtu_bytes: int) -> None:
        first = QPAttr(port_num=PORT)
        first.qp_access_flags = access_for(self._operation)
        mine.to_init(first)
        attr = QPAttr(port_num=PORT)
        attr.qp_access_flags = access_for(self._operation)
        attr.dest_qp_num = peer.qp_num
        attr.path_mtu = _MTUS[mtu_bytes]
        attr.rq_psn = attr.sq_psn = 0
        attr.max_rd_atomic = attr.max_dest_rd_atomic = 1
        attr.min_rnr_timer = 12
        attr.timeout = ACK_TIMEOUT
        attr.retry_cnt = 7
        attr.rnr_retry = 7
        attr.ah_attr = self._address()
        mine.to_rts(attr)

    def _address(self) -> Any:
        """Return the port's own address: its LID on InfiniBand, the GID of an IPv4 address on Ethernet."""
        port = self.context.query_port(PORT)
        if port.link_layer == e.IBV_LINK_LAYER_INFINIBAND:
            return AHAttr(dlid=port.lid, port_num=PORT, is_global=0)
        gid_index = _ipv4_gid(self.context)
        route = GlobalRoute(dgid=self.context.query_gid(PORT, gid_index), sgid_index=gid_index)
        return AHAttr(port_num=PORT, is_global=1, gr=route)

    def wait(self, completions: int) -> None:
        """Wait for that many completions; WorkFailed for an error or after the time-out."""
        deadline = time.monotonic_ns() + self._timeout_ns
        polls = 0
        while completions:
            ended = self.poll()
            if ended:
                raise WorkFailed(f"work completed with {ended}", ended)
            if ended is not None:
                completions -= 1
                continue
            polls += 1
            # On one CPU the driver's worker runs only when we yield; on a long wait time must pass.
            if polls < _EAGER_POLLS:
                os.sched_yield()
            else:
                time.sleep(_NAP_S)
            if time.monotonic_ns() > deadline:
                raise WorkFailed(f"{completions} completions missing after {self._timeout_ns / 1e9:g} s")

    def poll(self) -> Optional[str]:
        """Poll for one completion; return its error status, "" on success, None if there is none."""
        count, completions = self.cq.poll(1)
        if not count:
            return None
        return "" if completions[0].status == e.IBV_WC_SUCCESS else _status(completions[0].status)

    def end(self) -> str:
        """Wait for one completion; return its status as `poll` does. WorkFailed after the time-out."""
        deadline = time.monotonic_ns() + self._timeout_ns
        while True:
            ended = self.poll()
            if ended is not None:
                return ended
            if time.monotonic_ns() > deadline:
                raise WorkFailed(f"no completion after {self._timeout_ns / 1e9:g} s")
            time.sleep(_NAP_S)

    def to_error(self) -> None:
        """Move both queue pairs to the error state, which flushes their work requests."""
        for queue_pair in (self.requester, self.responder):
            queue_pair.modify(QPAttr(qp_state=e.IBV_QPS_ERR), e.IBV_QP_STATE)

    def close(self) -> None:
        """Destroy everything in reverse order of creation."""
        while self._open:
            self._open.pop().close()


def odp_problem(device: str, operation: str) -> Optional[str]:
    """Return what `device` lacks for on-demand paging with this operation over RC, or None."""
    with Context(name=device) as context:
        caps = context.query_device_ex().odp_caps
    rc = caps.rc_odp_caps
    needed = {
        "send": e.IBV_ODP_SUPPORT_SEND | e.IBV_ODP_SUPPORT_RECV,
        "write": e.IBV_ODP_SUPPORT_WRITE,
        "read": e.IBV_ODP_SUPPORT_READ,
        "compare_swap": e.IBV_ODP_SUPPORT_ATOMIC,
        "fetch_add": e.IBV_ODP_SUPPORT_ATOMIC,
        "flush": _ODP_SUPPORT_FLUSH,
        "atomic_write": _ODP_SUPPORT_ATOMIC_WRITE,
    }[operation]
    if not caps.general_caps & e.IBV_ODP_SUPPORT:
        return f"{device} has no on-demand paging (odp_caps.general is {caps.general_caps:#x})"
    if rc & needed != needed:
        return f"{device} has no on-demand paging for {operation} over RC (rc_odp_caps is {rc:#x})"
    return None


def odp_capabilities(device: str) -> Dict[str, str]:
    """Return the ODP capabilities of `device` as facts: `odp` and, for each transport, `odp.rc` and so on.

    Ref: rdma-core libibverbs/verbs.h, enum ibv_odp_transport_cap_bits
    """
    with Context(name=device) as context:
        caps = context.query_device_ex().odp_caps
    general = {"explicit": e.IBV_ODP_SUPPORT, "implicit": e.IBV_ODP_SUPPORT_IMPLICIT}
    facts = {"odp": " ".join(name for name, bit in general.items() if caps.general_caps & bit)}
    words = {
        name.lower(): getattr(e, f"IBV_ODP_SUPPORT_{name}")
        for name in ("SEND", "RECV", "WRITE", "READ", "ATOMIC", "SRQ_RECV")
    }
    words |= {"flush": _ODP_SUPPORT_FLUSH, "atomic_write": _ODP_SUPPORT_ATOMIC_WRITE}
    for transport in ("rc", "uc", "ud", "xrc"):
        bits = getattr(caps, f"{transport}_odp_caps")
        facts[f"odp.{transport}"] = " ".join(name for name, bit in words.items() if bits & bit)
    return facts


def _ipv4_gid(context: Any) -> int:
    """Return the index of the RoCEv2 GID of an IPv4 address."""
    for entry in context.query_gid_table(_MAX_GIDS):
        if entry.gid_type == e.IBV_GID_TYPE_ROCE_V2 and entry.gid_str().startswith(_IPV4_GID):
            return int(entry.gid_index)
    raise Unsupported(f"{context.name} has no RoCEv2 GID of an IPv4 address")


def _status(status: int) -> str:
    for name in dir(e):
        if name.startswith("IBV_WC_") and name.endswith("_ERR") and getattr(e, name) == status:
            return name
    return f"status {status}"
