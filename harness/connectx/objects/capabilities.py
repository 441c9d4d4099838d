"""Capability pages: the maximum of a card, and what the driver set."""

from __future__ import annotations

from harness.connectx.card import CardModel
from harness.connectx.status import FirmwareError, Status
from harness.wire.ifc import Layouts, View

CURRENT = 1
"""Low bit of QUERY_HCA_CAP's op_mod: the page as it is set, not its maximum. Ref: Linux 7.2
include/linux/mlx5/device.h, HCA_CAP_OPMOD_GET_CUR."""

GENERAL, ODP, ATOMIC = 0, 2, 3
"""Pages, op_mod >> 1. Ref: Linux 7.2 include/linux/mlx5/device.h, enum mlx5_cap_type."""

SIZE = 0x1000
TRANSPORT = "transport_page_fault_scheme_cap."


class Capabilities:
    """Pages of one card in the layout of one kernel; a field that its header lacks is left out."""

    def __init__(self, model: CardModel, layouts: Layouts) -> None:
        self._layouts = layouts
        self._model = model
        tables = {GENERAL: model.general, ODP: model.odp, ATOMIC: model.atomic}
        self._names = {GENERAL: "cmd_hca_cap", ODP: "odp_cap", ATOMIC: "atomic_caps"}
        self._maximum = {page: self._page(page) for page in self._names}
        for page, table in tables.items():
            view = self._view(page, self._maximum[page])
            for field, value, _ in table:
                self._set(view, field, value)
        self.reset()

    def reset(self) -> None:
        """Set every page to its maximum, as after power-on."""
        self._current = {page: bytearray(data) for page, data in self._maximum.items()}

    def _page(self, page: int) -> bytearray:
        return bytearray(max(SIZE, self._layouts[self._names[page]].size))

    def _view(self, page: int, data: bytearray) -> View:
        return self._layouts[self._names[page]].view(data)

    @staticmethod
    def _set(view: View, field: str, value: int) -> None:
        """Set a field. Linux 6.1 has the transport scheme's fields at the top of the page."""
        if not view.layout.has(field) and field.startswith(TRANSPORT):
            field = field[len(TRANSPORT) :]
        if view.layout.has(field):
            view[field] = value

    def page(self, op_mod: int) -> bytes:
        """Return the page that QUERY_HCA_CAP asks for; pages that a card does not have are zero."""
        pages = self._current if op_mod & 1 == CURRENT else self._maximum
        return bytes(pages.get(op_mod >> 1, b""))

    def store(self, page: int, data: memoryview) -> None:
        """Set a page for the driver, which may choose only the endianness mode of the atomic one."""
        if page not in self._current:
            raise FirmwareError(Status.BAD_PARAM, why=f"capability page {page:#x} cannot be set")
        if page == ATOMIC:
            name = "atomic_req_8B_endianness_mode"
            self._view(ATOMIC, self._current[ATOMIC])[name] = self._layouts["atomic_caps"].view(data)[name]
            return
        kept = self._current[page]
        kept[: len(data)] = data[: len(kept)]

    def current(self, page: int) -> View:
        """Return the page as it is set."""
        return self._view(page, self._current[page])

    @property
    def memory_scheme(self) -> bool:
        """True if the driver chose page faults by memory key."""
        return bool(self.current(ODP).get("mem_page_fault"))
