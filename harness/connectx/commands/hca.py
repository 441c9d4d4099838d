"""HCA commands: enable, interface revision, capabilities, init, teardown."""

from __future__ import annotations

from harness.connectx.commands.registry import Commands, command
from harness.connectx.device import DeviceState
from harness.connectx.objects.capabilities import Capabilities
from harness.connectx.objects.firmware_pages import Pages
from harness.connectx.objects.mkeys import (
    LOCAL_KEY,
    NULL_KEY,
)
from harness.connectx.status import FirmwareError, Status
from harness.wire.ifc import View

ISSI_SUPPORTED = 0b11
"""Interface step sequence 0 and 1. Ref: Linux 7.2 core/main.c mlx5_core_set_issi."""

VENDOR = 0x2C9
"""IEEE vendor id. Ref: rdma-core 56 providers/mlx5 and tests: without it a device is "non MLX5"."""


class HcaCommands(Commands):
    """Ref: Linux 7.2 core/main.c and core/fw.c."""

    def __init__(self, device: DeviceState, capabilities: Capabilities, pages: Pages) -> None:
        super().__init__(device)
        self._capabilities, self._pages = capabilities, pages

    @command("ENABLE_HCA")
    def enable_hca(self, request: View, reply: View) -> None:
        """Accept: nothing depends on it here."""

    @command("DISABLE_HCA")
    def disable_hca(self, request: View, reply: View) -> None:
        """Check that the driver has taken all pages back."""
        self._pages.lost()

    @command("INIT_HCA")
    def init_hca(self, request: View, reply: View) -> None:
        """Start: objects can be created from here on."""
        if self._device.initialised:
            raise FirmwareError(Status.BAD_SYS_STATE, why="initialised already")
        self._device.initialised = True

    @command("TEARDOWN_HCA")
    def teardown_hca(self, request: View, reply: View) -> None:
        """Remove all objects; those that are left are findings."""
        if not self._device.initialised:
            raise FirmwareError(Status.BAD_SYS_STATE, why="not initialised")
        self._device.objects.teardown()
        self._device.initialised = False

    @command("QUERY_ISSI")
    def query_issi(self, request: View, reply: View) -> None:
        """Return the supported interface steps."""
        reply["supported_issi_dw0"] = ISSI_SUPPORTED

    @command("SET_ISSI", "SET_DRIVER_VERSION")
    def accept(self, request: View, reply: View) -> None:
        """Accept: nothing depends on them here."""

    @command("QUERY_HCA_CAP")
    def query_hca_cap(self, request: View, reply: View) -> None:
        """Return a capability page, zeros for one that the card does not have. DEVX may ask for its beginning only."""
        page = self._capabilities.page(request["op_mod"])
        room = reply.data[reply.layout.slot("capability").first :]
        size = min(len(page), len(room))
        room[:size] = page[:size]

    @command("SET_HCA_CAP")
    def set_hca_cap(self, request: View, reply: View) -> None:
        """Set a capability page; not after INIT_HCA."""
        if self._device.initialised:
            raise FirmwareError(Status.BAD_SYS_STATE, why="SET_HCA_CAP after INIT_HCA")
        self._capabilities.store(request["op_mod"] >> 1, request.bytes("capability"))

    @command("QUERY_ADAPTER")
    def query_adapter(self, request: View, reply: View) -> None:
        """Return vendor and name."""
        adapter = reply.at("query_adapter_struct")
        adapter["ieee_vendor_id"] = VENDOR
        name = f"ODP-{self._device.model.name}".encode()[:16]
        adapter.bytes("vsd_contd_psid")[: len(name)] = name

    @command("QUERY_SPECIAL_CONTEXTS")
    def query_special_contexts(self, request: View, reply: View) -> None:
        """Return the keys that exist without being created."""
        reply["resd_lkey"] = LOCAL_KEY
        reply["null_mkey"] = NULL_KEY
