"""A control group of this process, whose memory can be reclaimed on request.

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
    """Move this process into the group until `stack` is closed: pages it touches first are charged to the group."""
    try:
        if not (_MOUNT / _PROCESSES).exists():
            libc.mount("none", str(_MOUNT), "cgroup2")
        (_MOUNT / "cgroup.subtree_control").write_text("+memory")
        _GROUP.mkdir(exist_ok=True)
        stack.callback(_GROUP.rmdir)
        (_GROUP / _PROCESSES).write_text(str(os.getpid()))
        stack.callback((_MOUNT / _PROCESSES).write_text, str(os.getpid()))
    except OSError as error:
        raise Unsupported(f"no memory control group: {error}") from error


def reclaim(size_bytes: int) -> None:
    """Reclaim so many bytes of the group, or all that it has; EAGAIN, which means that it had less, is no error."""
    try:
        (_GROUP / "memory.reclaim").write_text(str(size_bytes))
    except OSError as error:
        if error.errno != errno.EAGAIN:
            raise
