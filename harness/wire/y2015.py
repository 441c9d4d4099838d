"""The layouts of the first mlx5 page-fault interface: Haggai Eran's patches of December 2014 (Linux 3.19).

"net/mlx5_core: Add support for page faults events and low level handling" and its neighbours. Events
carried flags and the QPN where tokens are today, the resume command named the same flags and QPN, and a
transport had four capability bits. Ref: Linux 3.19 include/linux/mlx5/device.h, driver.h;
drivers/net/ethernet/mellanox/mlx5/core/qp.c.
"""

from __future__ import annotations

from harness.wire.bits import Field, Struct
from harness.wire.eqe import Eqe

QPN_BITS = 24
"""A QPN is 24 bits wide; flags lie above it. Ref: Linux 3.19 include/linux/mlx5/qp.h, MLX5_QPN_BITS."""

ON_DEMAND_PAGING = 1 << 24
"""Device capability flag. Ref: Linux 3.19 include/linux/mlx5/device.h, MLX5_DEV_CAP_FLAG_ON_DMND_PG."""

GET_ODP_MAX = 4
GET_ODP_CUR = 5
"""Operation modifiers of QUERY_HCA_CAP. Ref: Linux 3.19 include/linux/mlx5/driver.h,
HCA_CAP_OPMOD_GET_ODP_MAX."""

PAGE_FAULT_RESUME = 0x204
"""Ref: Linux 3.19 include/linux/mlx5/driver.h, MLX5_CMD_OP_PAGE_FAULT_RESUME."""


class OdpCaps(Struct, size=0x100):
    """The ODP capability page: four bits per transport, from the top of each word.

    Ref: Linux 3.19 include/linux/mlx5/device.h, struct mlx5_odp_caps, enum mlx5_odp_transport_cap_bits.
    """

    rc_send = Field(byte=0x10, bits=1, shift=7)
    rc_receive = Field(byte=0x10, bits=1, shift=6)
    rc_write = Field(byte=0x10, bits=1, shift=5)
    rc_read = Field(byte=0x10, bits=1, shift=4)
    uc_send = Field(byte=0x14, bits=1, shift=7)
    uc_receive = Field(byte=0x14, bits=1, shift=6)
    uc_write = Field(byte=0x14, bits=1, shift=5)
    uc_read = Field(byte=0x14, bits=1, shift=4)
    ud_send = Field(byte=0x18, bits=1, shift=7)
    ud_receive = Field(byte=0x18, bits=1, shift=6)
    ud_write = Field(byte=0x18, bits=1, shift=5)
    ud_read = Field(byte=0x18, bits=1, shift=4)


class PageFaultEqe(Eqe):
    """Fields of both forms: the flags tell who faulted (below), the QPN which queue pair.

    Ref: Linux 3.19 include/linux/mlx5/device.h, struct mlx5_eqe_page_fault; core/eq.c, mlx5_eq_pagefault.
    """

    bytes_committed = Field(byte=0x20, bits=32)
    flags_qpn = Field(byte=0x38, bits=32)
    rdma = Field(byte=0x38, bits=1, shift=2)
    write = Field(byte=0x38, bits=1, shift=1)
    requestor = Field(byte=0x38, bits=1)
    qpn = Field(byte=0x39, bits=QPN_BITS)


class PageFaultWqeEqe(PageFaultEqe):
    """Fault on a WQE, sub-type 0.

    Ref: Linux 3.19 include/linux/mlx5/device.h, struct mlx5_eqe_page_fault, wqe.
    """

    wqe_index = Field(byte=0x26, bits=16)
    packet_length = Field(byte=0x2A, bits=16)


class PageFaultRdmaEqe(PageFaultEqe):
    """Fault of an RDMA responder, sub-type 1.

    Ref: Linux 3.19 include/linux/mlx5/device.h, struct mlx5_eqe_page_fault, rdma.
    """

    r_key = Field(byte=0x24, bits=32)
    packet_length = Field(byte=0x2A, bits=16)
    rdma_op_len = Field(byte=0x2C, bits=32)
    rdma_va = Field(byte=0x30, bits=64)


RESUME_REQUESTOR = 1 << 0
RESUME_WRITE = 1 << 1
RESUME_RDMA = 1 << 2
RESUME_ERROR = 1 << 7
"""Flags of the resume. Ref: Linux 3.19 include/linux/mlx5/driver.h, enum mlx5_page_fault_resume_flags."""


class ResumeIn(Struct, size=16):
    """The resume mailbox. Ref: Linux 3.19 include/linux/mlx5/device.h, struct mlx5_page_fault_resume_mbox_in."""

    opcode = Field(byte=0, bits=16)
    opmod = Field(byte=6, bits=16)
    flags_qpn = Field(byte=8, bits=32)
    flags = Field(byte=8, bits=8)
    error = Field(byte=8, bits=1, shift=7)
    rdma = Field(byte=8, bits=1, shift=2)
    write = Field(byte=8, bits=1, shift=1)
    requestor = Field(byte=8, bits=1)
    qpn = Field(byte=9, bits=QPN_BITS)


class CreateMkeyIn(Struct, size=16):
    """Head of the CREATE_MKEY mailbox; with `pg_access` list entries have access bits, so pages may be absent.

    Ref: Linux 3.19 include/linux/mlx5/device.h, struct mlx5_create_mkey_mbox_in, MLX5_MKEY_INBOX_PG_ACCESS.
    """

    opcode = Field(byte=0, bits=16)
    opmod = Field(byte=6, bits=16)
    input_mkey_index = Field(byte=8, bits=32)
    flags = Field(byte=12, bits=32)
    pg_access = Field(byte=12, bits=1, shift=7)
