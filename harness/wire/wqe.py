"""Segments of work queue entries. Send queues count in blocks of 64 bytes, entries in segments of 16.

Ref: Linux 7.2 include/linux/mlx5/qp.h and device.h.
"""

from __future__ import annotations

from harness.wire.bits import Field, Struct

BLOCK = 64
SEGMENT = 16

NOP = 0x00
SEND_INVALIDATE = 0x01
RDMA_WRITE = 0x08
RDMA_WRITE_IMM = 0x09
SEND = 0x0A
SEND_IMM = 0x0B
RDMA_READ = 0x10
ATOMIC_CS = 0x11
ATOMIC_FA = 0x12
UMR = 0x25

INVALID_LKEY = 0x100
"""Ends a list of receive segments when the special context states no other terminator."""


class Control(Struct, size=16):
    """First segment of a send WQE; `general_id` is the immediate, the key to invalidate or the UMR's mkey.

    Ref: Linux 7.2 include/linux/mlx5/qp.h, struct mlx5_wqe_ctrl_seg.
    """

    opmod = Field(byte=0, bits=8)
    wqe_index = Field(byte=1, bits=16)
    opcode = Field(byte=3, bits=8)
    qpn = Field(byte=4, bits=24)
    ds = Field(byte=7, bits=6)
    signature = Field(byte=8, bits=8)
    fence = Field(byte=11, bits=3, shift=5)
    completion = Field(byte=11, bits=2, shift=2)
    solicited = Field(byte=11, bits=1, shift=1)
    general_id = Field(byte=12, bits=32)


COMPLETION_ON_ERROR = 0
COMPLETION_ALWAYS = 2
COMPLETION_AND_EVENT = 3


class RemoteAddress(Struct, size=16):
    """Where an RDMA operation goes. Ref: Linux 7.2 include/linux/mlx5/qp.h, struct mlx5_wqe_raddr_seg."""

    address = Field(byte=0, bits=64)
    rkey = Field(byte=8, bits=32)


class Atomic(Struct, size=16):
    """Operands of an atomic. Ref: Linux 7.2 include/linux/mlx5/qp.h, struct mlx5_wqe_atomic_seg."""

    swap_add = Field(byte=0, bits=64)
    compare = Field(byte=8, bits=64)


class Xrc(Struct, size=16):
    """The SRQ an XRC message goes to. Ref: Linux 7.2 include/linux/mlx5/qp.h, struct mlx5_wqe_xrc_seg."""

    srqn = Field(byte=1, bits=24)


class Data(Struct, size=16):
    """A piece of memory; `inline` says that `byte_count` bytes follow right here instead (10 bits of length).

    Ref: Linux 7.2 include/linux/mlx5/qp.h, struct mlx5_wqe_data_seg, mlx5_wqe_inline_seg.
    """

    inline = Field(byte=0, bits=1, shift=7)
    byte_count = Field(byte=0, bits=31)
    inline_length = Field(byte=2, bits=10)
    lkey = Field(byte=4, bits=32)
    address = Field(byte=8, bits=64)


class AddressVector(Struct, size=48):
    """Destination of a datagram. Ref: Linux 7.2 include/linux/mlx5/qp.h, struct mlx5_av."""

    qkey = Field(byte=0, bits=32)
    extended = Field(byte=8, bits=1, shift=7)
    dqpn = Field(byte=9, bits=24)
    stat_rate = Field(byte=12, bits=4, shift=4)
    sl = Field(byte=12, bits=4)
    fl = Field(byte=13, bits=1, shift=7)
    mlid = Field(byte=13, bits=7)
    rlid = Field(byte=14, bits=16)
    tclass = Field(byte=26, bits=8)
    hop_limit = Field(byte=27, bits=8)
    grh = Field(byte=28, bits=1, shift=6)
    sgid_index = Field(byte=28, bits=8, shift=20)
    flow_label = Field(byte=29, bits=20)
    rgid = Field(byte=32, bits=128)


class UmrControl(Struct, size=48):
    """Changes that a UMR makes; sizes and offsets in octowords of 16 bytes.

    Ref: Linux 7.2 include/linux/mlx5/qp.h, struct mlx5_wqe_umr_ctrl_seg; device.h, MLX5_UMR_*.
    """

    flags = Field(byte=0, bits=8)
    inline = Field(byte=0, bits=1, shift=7)
    check_free = Field(byte=0, bits=1, shift=6)
    check_not_free = Field(byte=0, bits=1, shift=5)
    translation_offset = Field(byte=0, bits=1, shift=4)
    check_qpn = Field(byte=0, bits=1, shift=3)
    xlt_octowords = Field(byte=4, bits=16)
    offset_low = Field(byte=6, bits=16)
    mkey_mask = Field(byte=8, bits=64)
    offset_high = Field(byte=16, bits=32)


class Klm(Struct, size=16):
    """An entry of an indirect key: length, key, address.

    Ref: Linux 7.2 include/linux/mlx5/qp.h, struct mlx5_klm.
    """

    byte_count = Field(byte=0, bits=32)
    key = Field(byte=4, bits=32)
    address = Field(byte=8, bits=64)


class SrqNext(Struct, size=16):
    """First segment of an SRQ entry: the next free entry.

    Ref: Linux 7.2 include/linux/mlx5/srq.h and mlx5_ib srq.c.
    """

    next_wqe_index = Field(byte=2, bits=16)
    signature = Field(byte=4, bits=8)
