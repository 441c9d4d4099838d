"""Memory keys by command; `datapath/umr.py` changes them by work request."""

from __future__ import annotations

import struct

from harness.connectx.commands.registry import Commands, command
from harness.connectx.device import DeviceState
from harness.connectx.faults.faults import Faults
from harness.connectx.object_table import PlainObject
from harness.connectx.objects import umems
from harness.connectx.objects.mkeys import (
    MTT,
    OCTOWORD,
    Key,
    Keys,
    key_fields,
)
from harness.connectx.status import FirmwareError, Status
from harness.wire.ifc import View


class MkeyCommands(Commands):
    """Ref: Linux 7.2 core/mr.c, drivers/infiniband/hw/mlx5/mr.c."""

    def __init__(self, device: DeviceState, keys: Keys, faults: Faults) -> None:
        super().__init__(device)
        self._keys, self._faults = keys, faults

    @command("CREATE_MKEY")
    def create_mkey(self, request: View, reply: View) -> None:
        """Create a key, with its translation if one is listed, or with the pages of a umem."""
        fields = key_fields(request.at("memory_key_mkey_entry"))
        size = request["translations_octword_actual_size"] * OCTOWORD
        listed = request.bytes("klm_pas_mtt")
        if request.get("mkey_umem_valid"):
            listed = self._of_umem(request, fields, size)
        if size > len(listed):
            raise FirmwareError(Status.BAD_INPUT_LENGTH, why=f"{size} bytes of translation announced")
        always = not request["pg_access"]
        self._keys.created["pg_access" if request["pg_access"] else "always"] += 1
        table = bytearray(listed[:size])
        key = Key(self._device.objects.number("mkey"), fields, table, always)
        if always and key.mode == MTT:
            _all_present(table)
        self._device.objects.add(key)
        reply["mkey_index"] = key.number

    def _of_umem(self, request: View, fields: dict[str, int], size: int) -> memoryview:
        """Return the translation of a umem, whose number follows the translation's size; headers do not name it.

        Ref: DPDK 23.11 drivers/common/mlx5/mlx5_prm.h, mlx5_ifc_create_mkey_in_bits
        """
        shift = fields["log_page_size"]
        pages = fields["len"] + (1 << shift) - 1 >> shift
        at = request.layout.slot("translations_octword_actual_size").first
        number, offset = struct.unpack_from(">IQ", request.data, at + 4)
        return memoryview(
            umems.entries(self._device.objects, number, offset, shift, pages).ljust(size, b"\0")
        )

    @command("DESTROY_MKEY")
    def destroy_mkey(self, request: View, reply: View) -> None:
        """Remove the key."""
        key: Key = self._device.objects.remove("mkey", request["mkey_index"])
        self._faults.object_gone("mkey", key.value)

    @command("QUERY_MKEY")
    def query_mkey(self, request: View, reply: View) -> None:
        """Return its context, and as much of its translation as the reply has room for.

        Drivers leave `pg_access` 0 and read the list of an indirect key.
        Ref: Linux 7.3 drivers/infiniband/hw/mlx5/odp.c, pagefault_single_data_segment
        """
        key: Key = self._device.objects.get("mkey", request["mkey_index"], "QUERY_MKEY")
        context = reply.at("memory_key_mkey_entry")
        context.update({name: value for name, value in key.fields.items() if value})
        room = reply.data[reply.layout.slot("bsf0_klm0_pas_mtt0_1").first :]
        size = min(len(room), len(key.table))
        room[:size] = key.table[:size]

    @command("CREATE_PSV")
    def create_psv(self, request: View, reply: View) -> None:
        """Create signature contexts, one to four."""
        for index in range(request["num_psv"]):
            psv = PlainObject(self._device.objects.number("psv"), table="psv", needs=(("pd", request["pd"]),))
            reply[f"psv{index}_index"] = self._device.objects.add(psv).number

    @command("DESTROY_PSV")
    def destroy_psv(self, request: View, reply: View) -> None:
        """Remove one."""
        self._device.objects.remove("psv", request["psvn"])


def _all_present(table: bytearray) -> None:
    """Set the access bits of all entries: without any they are present."""
    count = len(table) // 8
    entries = struct.unpack(f">{count}Q", table)
    struct.pack_into(f">{count}Q", table, 0, *(entry | 3 for entry in entries))
