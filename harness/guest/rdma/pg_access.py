"""Registration as in 2015: a memory key with PG_ACCESS, created by the firmware command itself.

A verbs registration takes its key from a pool; here CREATE_MKEY goes to the firmware through DEVX, with PG_ACCESS set
and a umem of the same memory for its pages.
Ref: Linux 7.2 drivers/infiniband/hw/mlx5/devx.c, devx_handle_mkey_create; the patch of 2014 in wire/y2015.py
"""

from __future__ import annotations

from typing import Any, Dict, Tuple

from harness.guest.mm.memory import Memory
from harness.guest.rdma.registration import (
    ACCESS_LOCAL_WRITE,
    ACCESS_REMOTE_READ,
    ACCESS_REMOTE_WRITE,
    Registration,
)
from harness.wire.bits import Field, Struct

CREATE_MKEY = 0x200
OUT_BYTES = 16
MODE_MTT = 1
PAGE_SHIFT = 12
ENTRY_BYTES, OCTOWORD = 8, 16
VARIANT = 0x42
"""Low byte of the key, which its creator chooses."""


class CreateMkeyIn(Struct, size=272):
    """CREATE_MKEY with its memory key context: the fields used here.

    Ref: Linux 6.1 and 7.2 include/linux/mlx5/mlx5_ifc.h, mlx5_ifc_create_mkey_in_bits, mlx5_ifc_mkc_bits
    """

    opcode = Field(byte=0, bits=16)
    pg_access = Field(byte=12, bits=1, shift=7)
    mkey_umem_valid = Field(byte=12, bits=1, shift=6)
    a = Field(byte=18, bits=1, shift=6)
    rw = Field(byte=18, bits=1, shift=5)
    rr = Field(byte=18, bits=1, shift=4)
    lw = Field(byte=18, bits=1, shift=3)
    lr = Field(byte=18, bits=1, shift=2)
    access_mode_1_0 = Field(byte=18, bits=2)
    qpn = Field(byte=20, bits=24)
    mkey_7_0 = Field(byte=23, bits=8)
    pd = Field(byte=29, bits=24)
    start_addr = Field(byte=32, bits=64)
    len = Field(byte=40, bits=64)
    translations_octword_size = Field(byte=68, bits=32)
    log_page_size = Field(byte=75, bits=5)
    translations_octword_actual_size = Field(byte=96, bits=32)
    mkey_umem_id = Field(byte=100, bits=32)
    mkey_umem_offset = Field(byte=104, bits=64)


def open_context(device: str) -> Any:
    """Open a device's context that may issue firmware commands (DEVX)."""
    from pyverbs.providers.mlx5.mlx5_enums import MLX5DV_CONTEXT_FLAGS_DEVX
    from pyverbs.providers.mlx5.mlx5dv import Mlx5Context, Mlx5DVContextAttr

    return Mlx5Context(Mlx5DVContextAttr(flags=MLX5DV_CONTEXT_FLAGS_DEVX), device)


def request(pdn: int, umem: int, start: int, length: int) -> bytes:
    """Encode the command for whole pages that begin at `start`."""
    octowords = -(-(length >> PAGE_SHIFT) * ENTRY_BYTES // OCTOWORD)
    command = CreateMkeyIn.new(
        opcode=CREATE_MKEY,
        pg_access=1,
        mkey_umem_valid=1,
        **dict.fromkeys(("rw", "rr", "lw", "lr"), 1),
        access_mode_1_0=MODE_MTT,
        qpn=0xFFFFFF,
        mkey_7_0=VARIANT,
        pd=pdn,
        start_addr=start,
        len=length,
        translations_octword_size=octowords,
        log_page_size=PAGE_SHIFT,
        translations_octword_actual_size=octowords,
        mkey_umem_id=umem,
    )
    return bytes(command)


class Regions:
    """Registers and deregisters such regions on a connection whose context is from `open_context`."""

    def __init__(self, connection: Any) -> None:
        self._connection = connection
        self._objects: Dict[int, Tuple[Any, Any]] = {}

    def register(self, memory: Memory) -> Registration:
        """Register a region that begins and ends on page boundaries."""
        from pyverbs.providers.mlx5.mlx5_enums import MLX5DV_OBJ_PD
        from pyverbs.providers.mlx5.mlx5dv import Mlx5DevxObj, Mlx5UMEM
        from pyverbs.providers.mlx5.mlx5dv_objects import Mlx5DvObj

        context, length = self._connection.context, memory.region.length
        pdn = Mlx5DvObj(MLX5DV_OBJ_PD, pd=self._connection.pd).dvpd.pdn
        access = ACCESS_LOCAL_WRITE | ACCESS_REMOTE_WRITE | ACCESS_REMOTE_READ
        umem = Mlx5UMEM(context, length, addr=memory.start, access=access)
        key = Mlx5DevxObj(context, request(pdn, umem.umem_id, memory.start, length), OUT_BYTES)
        number = int.from_bytes(bytes(key.out_view)[9:12], "big") << 8 | VARIANT
        self._objects[number] = (key, umem)
        return Registration(0, number, number, memory.start)

    def deregister(self, registration: Registration) -> None:
        """Destroy the key, then its umem."""
        for devx_object in self._objects.pop(registration.lkey):
            devx_object.close()
