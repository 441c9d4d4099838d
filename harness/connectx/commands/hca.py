"""The HCA as a whole: enable, interface revision, capabilities, init, teardown."""

from __future__ import annotations

from typing import TYPE_CHECKING

from harness.connectx.commands.registry import (
    Commands,
    FirmwareError,
    Status,
    command,
)
from harness.connectx.objects.mkeys import (
    LOCAL_KEY,
    NULL_KEY,
)

if TYPE_CHECKING:
    from harness.wire.ifc import View

ISSI_SUPPORTED = 0b11
"""Interface step sequence 0 and 1. Ref: Linux 7.2 core/main.c mlx5_core_set_issi."""

VENDOR = 0x2C9
"""IEEE vendor id. Ref: rdma-core 56 providers/mlx5 and tests: without it a device is "non MLX5"."""


class HcaCommands(Commands):
    """Ref: Linux 7.2 core/main.c and core/fw.c."""

    @command("ENABLE_HCA")
    def enable_hca(self, request: View, reply: View) -> None:
        """The driver takes the function."""
        self.hca.enabled = True

    @command("DISABLE_HCA")
    def disable_hca(self, request: View, reply: View) -> None:
        """It lets go: all pages must be back."""
        self.hca.pages.lost()
        self.hca.enabled = False

    @command("INIT_HCA")
    def init_hca(self, request: View, reply: View) -> None:
        """From here on objects can be made."""
        if self.hca.initialised:
            raise FirmwareError(Status.BAD_SYS_STATE, why="initialised already")
        self.hca.initialised = True

    @command("TEARDOWN_HCA")
    def teardown_hca(self, request: View, reply: View) -> None:
        """The end of all objects; those that are left are findings."""
        if not self.hca.initialised:
            raise FirmwareError(Status.BAD_SYS_STATE, why="not initialised")
        self.hca.judge.teardown()
        self.hca.initialised = False

    @command("QUERY_ISSI")
    def query_issi(self, request: View, reply: View) -> None:
        """Which interface steps there are."""
        reply["supported_issi_dw0"] = ISSI_SUPPORTED

    @command("SET_ISSI", "SET_DRIVER_VERSION")
    def accept(self, request: View, reply: View) -> None:
        """Nothing depends on them here."""

    @command("QUERY_HCA_CAP")
    def query_hca_cap(self, request: View, reply: View) -> None:
        """A capability page; those that a card does not have are zero. DEVX programs may ask for its beginning."""
        page = self.hca.capabilities.page(request["op_mod"])
        room = reply.data[reply.layout.slot("capability").first :]
        size = min(len(page), len(room))
        room[:size] = page[:size]

    @command("SET_HCA_CAP")
    def set_hca_cap(self, request: View, reply: View) -> None:
        """The driver chooses; not after INIT_HCA."""
        if self.hca.initialised:
            raise FirmwareError(Status.BAD_SYS_STATE, why="SET_HCA_CAP after INIT_HCA")
        self.hca.capabilities.store(request["op_mod"] >> 1, request.bytes("capability"))

    @command("QUERY_ADAPTER")
    def query_adapter(self, request: View, reply: View) -> None:
        """Who made the card."""
        adapter = reply.at("query_adapter_struct")
        adapter["ieee_vendor_id"] = VENDOR
        name = f"ODP-{self.hca.model.name}".encode()[:16]
        adapter.bytes("vsd_contd_psid")[: len(name)] = name

    @command("QUERY_SPECIAL_CONTEXTS")
    def query_special_contexts(self, request: View, reply: View) -> None:
        """Keys that exist by themselves."""
        reply["resd_lkey"] = LOCAL_KEY
        reply["null_mkey"] = NULL_KEY
