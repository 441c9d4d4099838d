"""Command status: a FirmwareError ends a command with one."""

from __future__ import annotations

import enum


class Status(enum.IntEnum):
    """Status of a command. Ref: Linux 7.2 include/linux/mlx5/device.h, MLX5_CMD_STAT_*."""

    OK = 0x00
    INTERNAL = 0x01
    BAD_OP = 0x02
    BAD_PARAM = 0x03
    BAD_SYS_STATE = 0x04
    BAD_RES = 0x05
    RES_BUSY = 0x06
    NOT_READY = 0x07
    EXCEED_LIMIT = 0x08
    BAD_RES_STATE = 0x09
    BAD_INDEX = 0x0A
    NO_RESOURCES = 0x0F
    BAD_QP_STATE = 0x10
    BAD_PACKET = 0x30
    BAD_SIZE_OUTS_CQES = 0x40
    BAD_INPUT_LENGTH = 0x50
    BAD_OUTPUT_LENGTH = 0x51


class FirmwareError(Exception):
    """End a command with a status and a syndrome; never leaves the card."""

    def __init__(self, status: Status, syndrome: int = 0, why: str = "") -> None:
        super().__init__(why or status.name)
        self.status = status
        self.syndrome = syndrome
