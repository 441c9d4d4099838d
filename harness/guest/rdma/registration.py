"""Memory registration at a chosen device address (iova).

pyverbs has no argument for the iova and no safe access to the pointers that libibverbs takes, so the two commands go
to the kernel as libibverbs sends them: written to the context's command file. They contain handles only, and are the
same for all devices without driver data (rxe, mlx5).
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
# Flags that let a device write. Ref: Linux 7.3 include/rdma/ib_verbs.h, ib_access_writable
ACCESS_WRITING = ACCESS_LOCAL_WRITE | ACCESS_REMOTE_WRITE | ACCESS_REMOTE_ATOMIC
# Ref: Linux 7.3 drivers/infiniband/hw/mlx5/mr.c, create_user_odp_mr: such a length at 0 is the whole address space.
_WHOLE_ADDRESS_SPACE = (1 << 64) - 1


class Registration(NamedTuple):
    """A registered region: the kernel's handle, the keys, and the device address (iova)."""

    handle: int
    lkey: int
    rkey: int
    address: int

    def at(self, offset: int) -> Registration:
        """Return the part that begins `offset` bytes further on."""
        return self._replace(address=self.address + offset)


def access_for(operation: str) -> int:
    """Return the access flags of regions and queue pairs; flush flags only for a flush, since few devices know them."""
    return ACCESS_ALL | (ACCESS_FLUSH_GLOBAL | ACCESS_FLUSH_PERSISTENT if operation == "flush" else 0)


def reg_mr_command(response: int, start: int, length: int, iova: int, pd: int, access: int) -> bytes:
    """Encode IB_USER_VERBS_CMD_REG_MR; `response` is the address of the 12-byte response."""
    words = _REG_MR.size // 4
    answer = _REG_MR_RESPONSE.size // 4
    return _REG_MR.pack(CMD_REG_MR, words, answer, response, start, length, iova, pd, access)


def dereg_mr_command(handle: int) -> bytes:
    """Encode IB_USER_VERBS_CMD_DEREG_MR."""
    return _DEREG_MR.pack(CMD_DEREG_MR, _DEREG_MR.size // 4, 0, handle)


def iova_of(kind: str, start: int) -> int:
    """Return the iova for a region at `start`; `kind` is one of values.case.IOVAS but `implicit`."""
    if kind == "zero":
        # The kernel requires the same offset in the page.
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
    """Register a region that begins at `start`, on demand or pinned; OSError if refused.

    Read-only memory is registered without the write flags of `access`.
    """
    if region.prot == "read":
        access &= ~ACCESS_WRITING
    if odp:
        access |= ACCESS_ON_DEMAND
    if region.iova == "implicit":
        return register(command_fd, pd, 0, _WHOLE_ADDRESS_SPACE, 0, access)._replace(address=start)
    return register(command_fd, pd, start, region.length, iova_of(region.iova, start), access)


def deregister(command_fd: int, registration: Registration) -> None:
    """Deregister a region."""
    os.write(command_fd, dereg_mr_command(registration.handle))
