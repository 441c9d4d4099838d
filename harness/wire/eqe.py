"""Event queue entries: 64 bytes, the data of an event at 0x20, the owner bit last.

Ref: Linux 7.2 include/linux/mlx5/device.h, struct mlx5_eqe and the structures of union ev_data; enum
mlx5_event.
"""

from __future__ import annotations

from harness.wire.bits import Field, Struct

SIZE = 64
DATA = 0x20

COMPLETION = 0x00
COMM_EST = 0x02
SQ_DRAINED = 0x03
CQ_ERROR = 0x04
WQ_CATAS_ERROR = 0x05
INTERNAL_ERROR = 0x08
PORT_CHANGE = 0x09
COMMAND = 0x0A
PAGE_REQUEST = 0x0B
PAGE_FAULT = 0x0C
WQ_INVALID_REQUEST = 0x10
WQ_ACCESS_ERROR = 0x11
SRQ_CATAS_ERROR = 0x12
SRQ_LAST_WQE = 0x13
SRQ_LIMIT = 0x14

PORT_ACTIVE = 4
"""Sub-type of PORT_CHANGE: the port is up. Ref: Linux 7.2 include/linux/mlx5/device.h,
MLX5_PORT_CHANGE_SUBTYPE_ACTIVE."""


class Eqe(Struct, size=SIZE):
    """Fields of every entry. Ref: Linux 7.2 include/linux/mlx5/device.h, struct mlx5_eqe."""

    type = Field(byte=1, bits=8)
    sub_type = Field(byte=3, bits=8)
    signature = Field(byte=0x3E, bits=8)
    owner = Field(byte=0x3F, bits=1)


class CompletionEqe(Eqe):
    """A completion queue got an entry. Ref: Linux 7.2 include/linux/mlx5/device.h, struct mlx5_eqe_comp."""

    cqn = Field(byte=0x39, bits=24)


class CommandEqe(Eqe):
    """Commands are done, a bit per slot. Ref: Linux 7.2 include/linux/mlx5/device.h, struct mlx5_eqe_cmd."""

    vector = Field(byte=0x20, bits=32)


class PageRequestEqe(Eqe):
    """The card asks for pages, or with a negative count offers to return some.

    Ref: Linux 7.2 include/linux/mlx5/device.h, struct mlx5_eqe_page_req.
    """

    ec_function = Field(byte=0x20, bits=1, shift=15)
    func_id = Field(byte=0x22, bits=16)
    num_pages = Field(byte=0x24, bits=32)


class QpSrqEqe(Eqe):
    """Something happened to a QP, an RQ, an SQ (`queue_type` 0, 1, 2) or an SRQ.

    Ref: Linux 7.2 include/linux/mlx5/device.h, struct mlx5_eqe_qp_srq.
    """

    queue_type = Field(byte=0x34, bits=8)
    qp_srq_n = Field(byte=0x39, bits=24)


class CqErrorEqe(Eqe):
    """A completion queue is broken. Ref: Linux 7.2 include/linux/mlx5/device.h, struct mlx5_eqe_cq_err."""

    cqn = Field(byte=0x21, bits=24)
    syndrome = Field(byte=0x2B, bits=8)


class PortEqe(Eqe):
    """A port changed. Ref: Linux 7.2 include/linux/mlx5/device.h, struct mlx5_eqe_port_state."""

    port = Field(byte=0x28, bits=4, shift=4)


PAGE_FAULT_WQE = 0
PAGE_FAULT_RDMA = 1
PAGE_FAULT_MEMORY = 2

FAULT_RMP = 0
FAULT_REQUESTER_SEND_WRITE = 1
FAULT_RESPONDER = 2
FAULT_REQUESTER_READ_ATOMIC = 3
FAULT_RDMA_READ = 4
FAULT_RDMA_WRITE = 6
"""Types of transport faults. Ref: Linux 7.2 include/linux/mlx5/device.h, enum wqe_page_fault_type;
the two of the responder are the 2015 flags RDMA (4) and WRITE (2). Ref: y2015.ResumeFlags."""


class PageFaultWqeEqe(Eqe):
    """Page fault on a local WQE, sub-type 0.

    Ref: Linux 7.2 include/linux/mlx5/device.h, struct mlx5_eqe_page_fault, wqe.
    """

    bytes_committed = Field(byte=0x20, bits=32)
    wqe_index = Field(byte=0x26, bits=16)
    packet_length = Field(byte=0x2A, bits=16)
    token = Field(byte=0x2C, bits=32)
    pf_type = Field(byte=0x38, bits=3)
    wq = Field(byte=0x39, bits=24)


class PageFaultRdmaEqe(Eqe):
    """Page fault at the responder of an RDMA operation, sub-type 1.

    Ref: Linux 7.2 include/linux/mlx5/device.h, struct mlx5_eqe_page_fault, rdma.
    """

    bytes_committed = Field(byte=0x20, bits=32)
    r_key = Field(byte=0x24, bits=32)
    packet_length = Field(byte=0x2A, bits=16)
    op_length = Field(byte=0x2C, bits=32)
    va = Field(byte=0x30, bits=64)
    pf_type = Field(byte=0x38, bits=3)
    token = Field(byte=0x39, bits=24)


class PageFaultMemoryEqe(Eqe):
    """Page fault on a memory key, sub-type 2: pages of 4096 bytes, token of 48 bits in two parts.

    Ref: Linux 7.2 include/linux/mlx5/device.h, struct mlx5_eqe_page_fault, memory; mlx5_ib odp.c for the
    flag `last`.
    """

    last = Field(byte=0x20, bits=1, shift=7)
    post_pages = Field(byte=0x22, bits=16)
    pre_pages = Field(byte=0x24, bits=16)
    token_high = Field(byte=0x26, bits=16)
    token_low = Field(byte=0x28, bits=32)
    demand_pages = Field(byte=0x2C, bits=20, shift=12)
    mkey = Field(byte=0x30, bits=32)
    va = Field(byte=0x34, bits=64)
