"""Completion queue entries: 64 bytes, the owner bit last.

Ref: Linux 7.2 include/linux/mlx5/device.h, struct mlx5_cqe64 and mlx5_err_cqe; cq.h for opcodes and
syndromes.
"""

from __future__ import annotations

from harness.wire.bits import Field, Struct

SIZE = 64

REQUESTER = 0
RECEIVE_WRITE_IMM = 1
RECEIVE_SEND = 2
RECEIVE_SEND_IMM = 3
RECEIVE_SEND_INV = 4
RESIZE = 5
REQUESTER_ERROR = 13
RESPONDER_ERROR = 14
INVALID = 15

LOCAL_LENGTH = 0x01
LOCAL_QP_OPERATION = 0x02
LOCAL_PROTECTION = 0x04
FLUSH = 0x05
MW_BIND = 0x06
BAD_RESPONSE = 0x10
LOCAL_ACCESS = 0x11
REMOTE_INVALID_REQUEST = 0x12
REMOTE_ACCESS = 0x13
REMOTE_OPERATION = 0x14
RETRY_EXCEEDED = 0x15
RNR_RETRY_EXCEEDED = 0x16


class Cqe(Struct, size=SIZE):
    """A completion. With CQE version 1 `srqn_uidx` is the user index of the QP (or of the XRC SRQ).

    Ref: Linux 7.2 include/linux/mlx5/device.h, struct mlx5_cqe64.
    """

    wqe_id = Field(byte=0x02, bits=16)
    ml_path = Field(byte=0x11, bits=8)
    slid = Field(byte=0x16, bits=16)
    rx_flags = Field(byte=0x18, bits=8)
    rqpn = Field(byte=0x19, bits=24)
    srqn_uidx = Field(byte=0x21, bits=24)
    immediate = Field(byte=0x24, bits=32)
    byte_count = Field(byte=0x2C, bits=32)
    timestamp = Field(byte=0x30, bits=64)
    wqe_opcode = Field(byte=0x38, bits=8)
    qpn = Field(byte=0x39, bits=24)
    wqe_counter = Field(byte=0x3C, bits=16)
    signature = Field(byte=0x3E, bits=8)
    opcode = Field(byte=0x3F, bits=4, shift=4)
    format = Field(byte=0x3F, bits=2, shift=2)
    solicited = Field(byte=0x3F, bits=1, shift=1)
    owner = Field(byte=0x3F, bits=1)


class ErrorCqe(Struct, size=SIZE):
    """A completion with error. Ref: Linux 7.2 include/linux/mlx5/device.h, struct mlx5_err_cqe."""

    srqn_uidx = Field(byte=0x21, bits=24)
    vendor_syndrome = Field(byte=0x36, bits=8)
    syndrome = Field(byte=0x37, bits=8)
    wqe_opcode = Field(byte=0x38, bits=8)
    qpn = Field(byte=0x39, bits=24)
    wqe_counter = Field(byte=0x3C, bits=16)
    signature = Field(byte=0x3E, bits=8)
    opcode = Field(byte=0x3F, bits=4, shift=4)
    owner = Field(byte=0x3F, bits=1)
