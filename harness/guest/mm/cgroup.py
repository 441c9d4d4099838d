"""A control group of this process, whose memory the kernel reclaims when it is told to.

Ref: Linux 7.3 Documentation/admin-guide/cgroup-v2.rst, memory.reclaim
"""

from __future__ import annotations

import errno
import os
from contextlib import ExitStack
from pathlib import Path

from harness.guest.errors import Unsupported
from harness.guest.mm import libc

_MOUNT = Path("/sys/fs/cgroup")
_GROUP = _MOUNT / "odp"
_PROCESSES = "cgroup.procs"


def enter(stack: ExitStack) -> None:
    """What this process touches first from now on is charged to the group, until `stack` is closed."""
    try:
        if not (_MOUNT / _PROCESSES).exists():
            libc.mount("none", str(_MOUNT), "cgroup2")
        (_MOUNT / "cgroup.subtree_control").write_text("+memory")
        _GROUP.mkdir(exist_ok=True)
        stack.callback(_GROUP.rmdir)
        (_GROUP / _PROCESSES).write_text(str(os.getpid()))
        stack.callback((_MOUNT / _PROCESSES).write_text, str(os.getpid()))
    except OSError as error:
        raise Unsupported(f"no control group for memory: {error}") from error


def reclaim(size_bytes: int) -> None:
    """Have so much of the group's memory reclaimed, or all there is: the kernel says when it found less."""
    try:
        (_GROUP / "memory.reclaim").write_text(str(size_bytes))
    except OSError as error:
        if error.errno != errno.EAGAIN:
            raise
