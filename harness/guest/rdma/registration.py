"""Registering memory at a device address of one's choice.

pyverbs has no argument for the registered address (iova) and no safe way to the pointers that libibverbs
wants, so the two commands go to the kernel as libibverbs itself sends them: written to the context's command
file. They carry handles only and are the same for all devices without driver data (rxe, mlx5).
"""

from __future__ import annotations

import ctypes
import os
import struct
from typing import NamedTuple

from harness.values.case import Region

# Ref: Linux 7.3 include/uapi/rdma/ib_user_verbs.h: IB_USER_VERBS_CMD_*, struct ib_uverbs_cmd_hdr,
# ib_uverbs_reg_mr, ib_uverbs_reg_mr_resp, ib_uverbs_dereg_mr; lengths in the header are 32-bit words.
CMD_REG_MR = 9
CMD_DEREG_MR = 13
_REG_MR = struct.Struct("=IHHQQQQII")
_REG_MR_RESPONSE = struct.Struct("=III")
_DEREG_MR = struct.Struct("=IHHI")

# Ref: Linux 7.3 include/uapi/rdma/ib_user_ioctl_verbs.h, enum ib_uverbs_access_flags
ACCESS_LOCAL_WRITE = 1 << 0
ACCESS_REMOTE_WRITE = 1 << 1
ACCESS_REMOTE_READ = 1 << 2
ACCESS_REMOTE_ATOMIC = 1 << 3
ACCESS_ON_DEMAND = 1 << 6
ACCESS_FLUSH_GLOBAL = 1 << 8
ACCESS_FLUSH_PERSISTENT = 1 << 9
ACCESS_ALL = ACCESS_LOCAL_WRITE | ACCESS_REMOTE_WRITE | ACCESS_REMOTE_READ | ACCESS_REMOTE_ATOMIC
# Each of them lets a device write. Ref: Linux 7.3 include/rdma/ib_verbs.h, ib_access_writable
ACCESS_WRITING = ACCESS_LOCAL_WRITE | ACCESS_REMOTE_WRITE | ACCESS_REMOTE_ATOMIC
# Ref: Linux 7.3 drivers/infiniband/hw/mlx5/mr.c, create_user_odp_mr: such a length at 0 is the whole address space.
_EVERYTHING = (1 << 64) - 1


class Registration(NamedTuple):
    """A registered region: the kernel's handle, the keys, and the address the device knows it by."""

    handle: int
    lkey: int
    rkey: int
    address: int

    def at(self, offset: int) -> Registration:
        """The part of it that begins so many bytes further on."""
        return self._replace(address=self.address + offset)


def access_for(operation: str) -> int:
    """The rights of a region and of queue pairs: all, and to flush where that is done (few devices know it)."""
    return ACCESS_ALL | (ACCESS_FLUSH_GLOBAL | ACCESS_FLUSH_PERSISTENT if operation == "flush" else 0)


def reg_mr_command(response: int, start: int, length: int, iova: int, pd: int, access: int) -> bytes:
    """The bytes of IB_USER_VERBS_CMD_REG_MR; `response` is the address of the 12-byte answer."""
    words = _REG_MR.size // 4
    answer = _REG_MR_RESPONSE.size // 4
    return _REG_MR.pack(CMD_REG_MR, words, answer, response, start, length, iova, pd, access)


def dereg_mr_command(handle: int) -> bytes:
    """The bytes of IB_USER_VERBS_CMD_DEREG_MR."""
    return _DEREG_MR.pack(CMD_DEREG_MR, _DEREG_MR.size // 4, 0, handle)


def iova_of(kind: str, start: int) -> int:
    """The device address for a region at `start`; `kind` is one of values.case.IOVAS but `implicit`."""
    if kind == "zero":
        # The kernel wants the same offset in the page.
        return start % 4096
    return start + (1 << 40) if kind == "shifted" else start


def register(command_fd: int, pd: int, start: int, length: int, iova: int, access: int) -> Registration:
    """Register `length` bytes at `start` in the protection domain with handle `pd`; OSError if refused."""
    answer = ctypes.create_string_buffer(_REG_MR_RESPONSE.size)
    os.write(command_fd, reg_mr_command(ctypes.addressof(answer), start, length, iova, pd, access))
    handle, lkey, rkey = _REG_MR_RESPONSE.unpack(answer.raw)
    return Registration(handle, lkey, rkey, iova)


def register_region(
    command_fd: int, pd: int, region: Region, start: int, access: int, odp: bool
) -> Registration:
    """Register a region that begins at `start` as it says, on demand or not; OSError if refused.

    Of `access`, memory that may only be read gets no right to write.
    """
    if region.prot == "read":
        access &= ~ACCESS_WRITING
    if odp:
        access |= ACCESS_ON_DEMAND
    if region.iova == "implicit":
        return register(command_fd, pd, 0, _EVERYTHING, 0, access)._replace(address=start)
    return register(command_fd, pd, start, region.length, iova_of(region.iova, start), access)


def deregister(command_fd: int, registration: Registration) -> None:
    """Give a registration back."""
    os.write(command_fd, dereg_mr_command(registration.handle))
