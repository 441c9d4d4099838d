"""Pages that the driver lends to the card: asked for at boot, at init and as objects are made, given back
at the end.

Ref: Linux 7.2 core/pagealloc.c.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

from harness.connectx.commands.registry import (
    FirmwareError,
    Status,
)
from harness.wire import eqe

if TYPE_CHECKING:
    from harness.connectx.hca import Hca

BOOT, INIT = 1, 2
"""op_mod of QUERY_PAGES. Ref: Linux 7.2 core/pagealloc.c mlx5_cmd_query_pages."""

OBJECTS_PER_PAGE = 4
STEP = 64
"""Pages in one request while running, and how many may lie idle before some are offered back."""

COSTLY = ("qp", "cq", "srq", "mkey", "eq")


class Pages:
    """The pages a card holds. It stores nothing in them; it keeps count as if it did."""

    def __init__(self, hca: Hca) -> None:
        self._hca = hca
        self.held: dict[int, None] = {}
        self.startup = 0
        self.pending = 0
        self.asked = {BOOT: hca.model.boot_pages, INIT: hca.model.init_pages}

    def wanted(self, op_mod: int) -> int:
        """Pages to give at this stage; each stage asks once."""
        count = self.asked.get(op_mod, 0)
        self.startup += count
        self.asked[op_mod] = 0
        return count

    def give(self, addresses: memoryview, count: int) -> None:
        """The driver lends pages. Twice the same is a finding, as is an address that is not a page."""
        if len(addresses) < 8 * count:
            raise FirmwareError(Status.BAD_INPUT_LENGTH, why=f"{count} pages announced")
        for address in struct.unpack_from(f">{count}Q", addresses):
            if address in self.held:
                self._hca.judge.find("pages-lost", f"page {address:#x}", "given twice")
            elif address & 0xFFF:
                self._hca.judge.find("bad-address", f"page {address:#x}", "not the beginning of a page")
            self.held[address] = None
        self.pending = max(0, self.pending - count)

    def refused(self) -> None:
        """The driver cannot give what was asked for."""
        self.pending = 0

    def take(self, limit: int) -> list[int]:
        """Hand back at most `limit` pages, the newest first: all of them once the HCA is torn down."""
        spare = len(self.held) if not self._hca.initialised else self._spare()
        taken = [self.held.popitem()[0] for _ in range(min(limit, max(spare, 0)))]
        self.pending = max(0, self.pending)
        return taken

    def _spare(self) -> int:
        """Pages that no object needs."""
        objects = sum(len(self._hca.judge.table(kind)) for kind in COSTLY)
        return len(self.held) - self.startup - objects // OBJECTS_PER_PAGE

    def balance(self) -> None:
        """Ask for pages, or offer some back (a negative count), as objects come and go. One request at a
        time."""
        if not self._hca.initialised or self.pending:
            return
        spare = self._spare()
        count = STEP if spare < 0 else -STEP if spare > 2 * STEP else 0
        if count:
            event = eqe.PageRequestEqe.new(func_id=0, num_pages=count & 0xFFFFFFFF)
            if self._hca.events.post(eqe.PAGE_REQUEST, event):
                self.pending = count

    def lost(self) -> None:
        """The HCA is disabled: pages that the driver did not take back are a finding."""
        if self.held:
            self._hca.judge.find("pages-lost", f"{len(self.held)} pages", "not taken back at DISABLE_HCA")
        self.held.clear()
        self.startup = 0
        self.asked = {BOOT: self._hca.model.boot_pages, INIT: self._hca.model.init_pages}
