"""UMR: work requests that change memory keys. The driver's own QP sends most of them, windows send the rest.

Ref: Linux 7.2 drivers/infiniband/hw/mlx5/umr.c; rdma-core 56 providers/mlx5/qp.c for windows.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from harness.connectx.mkeys import Refused
from harness.wire import cqe, wqe

if TYPE_CHECKING:
    from harness.connectx.hca import Hca
    from harness.connectx.qps import QueuePair

CONTEXT_AT = 64
LIST_AT = 128
"""Where the key's context lies in the WQE, and its data segment or inline list."""


def run_umr(hca: Hca, qp: QueuePair, control: wqe.Control, work: bytes) -> None:
    """Do one UMR. Raises Refused with the syndrome of its completion."""
    if len(work) < LIST_AT:
        raise Refused(cqe.LOCAL_QP_OPERATION, "UMR without a key segment")
    umr = wqe.UmrControl(work, at=wqe.SEGMENT)
    size = umr.xlt_octowords * 16
    listed = b""
    if umr.inline:
        listed = work[LIST_AT : LIST_AT + size]
    elif size:
        listed = _pointed(hca, qp, work, size)
    hca.log(
        {
            "what": "umr",
            "key": control.general_id,
            "flags": umr.flags,
            "mask": umr.mkey_mask,
            "offset": umr.offset_high << 16 | umr.offset_low,
            "octowords": umr.xlt_octowords,
        }
    )
    hca.keys.umr(control.general_id, umr, hca.layouts["mkc"].view(work, CONTEXT_AT), listed, qp.pd)


def _pointed(hca: Hca, qp: QueuePair, work: bytes, size: int) -> bytes:
    """The translation list that the data segment points at."""
    if len(work) < LIST_AT + wqe.SEGMENT:
        raise Refused(cqe.LOCAL_QP_OPERATION, "UMR list without a pointer")
    data = wqe.Data(work, at=LIST_AT)
    spans, absent = hca.keys.access(data.lkey, data.address, size, qp.pd, "lr", cqe.LOCAL_PROTECTION)
    if absent is not None:
        raise Refused(cqe.LOCAL_PROTECTION, "UMR list on an absent page")
    pieces = (
        bytes(span.length) if span.address is None else hca.memory.read(span.address, span.length)
        for span in spans
    )
    return b"".join(pieces)
