"""Shared receive queues: linked entries in a ring, shared by many QPs."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import ClassVar

from harness.connectx.object_table import FwObject
from harness.connectx.objects.queues import Ring


@dataclass(eq=False)
class SharedQueue(FwObject):
    """An SRQ. `limit` is the low watermark, 0 when not armed; `cqn`, `xrcd` and `user_index` are XRC's.

    Entries form a list: each names the next in its first segment; `head` is the next to be taken.
    """

    kind: ClassVar[str] = "srq"
    ring: Ring
    log_size: int
    stride: int
    record: int
    pd: int
    limit: int
    context: bytearray
    cqn: int | None = None
    xrcd: int | None = None
    user_index: int = 0
    head: int = 0
    taken: int = 0

    def refers(self) -> Iterable[tuple[str, int]]:
        """Name its PD, and XRC's CQ and domain."""
        needs = [("pd", self.pd)]
        if self.cqn is not None:
            needs.append(("cq", self.cqn))
        if self.xrcd is not None:
            needs.append(("xrcd", self.xrcd))
        return needs
