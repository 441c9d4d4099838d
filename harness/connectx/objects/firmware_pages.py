"""Firmware pages: lent by the driver at boot, at init and as objects are created, returned at the end.

Ref: Linux 7.2 core/pagealloc.c.
"""

from __future__ import annotations

import struct

from harness.connectx.device import DeviceState
from harness.connectx.objects.queues import Events
from harness.connectx.status import FirmwareError, Status
from harness.wire import eqe

BOOT, INIT = 1, 2
"""op_mod of QUERY_PAGES. Ref: Linux 7.2 core/pagealloc.c mlx5_cmd_query_pages."""

OBJECTS_PER_PAGE = 4
STEP = 64
"""Pages in one request while running; twice as many may be spare before some are returned."""

COSTLY = ("qp", "cq", "srq", "mkey", "eq")


class Pages:
    """Pages that a card holds. It stores nothing in them; it counts as if it did."""

    def __init__(self, device: DeviceState, events: Events) -> None:
        self._device, self._events = device, events
        self.reset()

    def reset(self) -> None:
        """Hold nothing, as after power-on."""
        self.held: dict[int, None] = {}
        self.startup = 0
        self.pending = 0
        self.due = {BOOT: self._device.model.boot_pages, INIT: self._device.model.init_pages}

    def ask(self, op_mod: int) -> int:
        """Return the number of pages to give at this stage; each stage asks once."""
        count = self.due.get(op_mod, 0)
        self.startup += count
        self.due[op_mod] = 0
        return count

    def give(self, addresses: memoryview, count: int) -> None:
        """Take pages that the driver lends. A page lent twice is a finding, as is an unaligned address."""
        if len(addresses) < 8 * count:
            raise FirmwareError(Status.BAD_INPUT_LENGTH, why=f"{count} pages announced")
        for address in struct.unpack_from(f">{count}Q", addresses):
            if address in self.held:
                self._device.findings.report("pages-lost", f"page {address:#x}", "lent twice")
            elif address & 0xFFF:
                self._device.findings.report(
                    "bad-address", f"page {address:#x}", "not the beginning of a page"
                )
            self.held[address] = None
        self.pending = max(0, self.pending - count)

    def refused(self) -> None:
        """Give up the request: the driver has no pages."""
        self.pending = 0

    def take(self, limit: int) -> list[int]:
        """Return at most `limit` pages to the driver, the newest first: all of them once the HCA is torn down."""
        spare = len(self.held) if not self._device.initialised else self._spare()
        taken = [self.held.popitem()[0] for _ in range(min(limit, max(spare, 0)))]
        self.pending = max(0, self.pending)
        return taken

    def _spare(self) -> int:
        """Count the pages that no object needs."""
        objects = sum(len(self._device.objects.table(kind)) for kind in COSTLY)
        return len(self.held) - self.startup - objects // OBJECTS_PER_PAGE

    def adjust(self) -> None:
        """Request pages, or offer some (a negative count), as objects come and go. One request at a time."""
        if not self._device.initialised or self.pending:
            return
        spare = self._spare()
        count = STEP if spare < 0 else -STEP if spare > 2 * STEP else 0
        if count:
            event = eqe.PageRequestEqe.new(func_id=0, num_pages=count & 0xFFFFFFFF)
            if self._events.post(eqe.PAGE_REQUEST, event):
                self.pending = count

    def lost(self) -> None:
        """Report the pages that the driver did not take back before DISABLE_HCA."""
        if self.held:
            self._device.findings.report(
                "pages-lost", f"{len(self.held)} pages", "not taken back at DISABLE_HCA"
            )
        self.held.clear()
        self.startup = 0
        self.due = {BOOT: self._device.model.boot_pages, INIT: self._device.model.init_pages}
