"""The port: an InfiniBand link that is up, with its LID, GID and P_Key, and its registers."""

from __future__ import annotations

from harness.connectx.commands.registry import Commands, command
from harness.wire.ifc import View

GUID = 0x0002C90300000D10
GID_PREFIX = 0xFE80 << 48
PKEY = 0xFFFF
PKEYS = 128
GIDS = 8
ACTIVE, LINK_UP = 4, 5
LID = SM_LID = 1

CAPABILITIES = 0x02514868 | 1 << 1
"""PortInfo capability mask. Ref: Linux 7.2 include/rdma/ib_mad.h, enum ib_port_capability_mask_bits."""

REGISTERS: dict[int, tuple[str, dict[str, int]]] = {
    0x5003: ("pmtu_reg", {"max_mtu": 4096, "admin_mtu": 4096, "oper_mtu": 4096}),
    0x5004: (
        "ptys_reg",
        {
            "ib_link_width_capability": 0b111,
            "ib_proto_capability": 0x3F,
            "ib_link_width_admin": 0b111,
            "ib_proto_admin": 0x3F,
            "ib_link_width_oper": 0b100,
            "ib_proto_oper": 0x20,
        },
    ),
    0x500F: ("pvlc_reg", {"vl_hw_cap": 4, "vl_admin": 4, "vl_operational": 4}),
}
"""Values that ACCESS_REG reads: 4X, EDR, 4096 bytes. Ref: Linux 7.2 include/linux/mlx5/driver.h, MLX5_REG_PMTU and
others; core/port.c."""

NODE_DESCRIPTION = 0x6001
UNSUPPORTED_ATTRIBUTE = 0x000C
"""Status of a MAD reply. Ref: InfiniBand architecture 1.4, 13.4.7 (method and attribute combination)."""


class PortCommands(Commands):
    """Ref: Linux 7.2 core/port.c, core/vport.c, drivers/infiniband/hw/mlx5/mad.c."""

    @command("ACCESS_REG", layout="access_register")
    def access_register(self, request: View, reply: View) -> None:
        """Read a register of the table; writes are accepted, unknown registers are zero."""
        layout, values = REGISTERS.get(request["register_id"], ("", {}))
        data = reply.bytes("register_data")
        if layout:
            register = self._device.layouts[layout].view(data)
            register["local_port"] = 1
            register.update(values)
        elif request["register_id"] == NODE_DESCRIPTION:
            text = f"{self._device.model.name} odp-harness".encode()
            data[: len(text)] = text[: len(data)]

    @command("QUERY_HCA_VPORT_CONTEXT")
    def query_context(self, request: View, reply: View) -> None:
        """Return the port's state and names."""
        reply.at("hca_vport_context").update(
            {
                "field_select": 0x7,
                "sm_virt_aware": 1,
                "port_physical_state": LINK_UP,
                "port_state": ACTIVE,
                "vport_state": ACTIVE,
                "system_image_guid": GUID,
                "port_guid": GUID,
                "node_guid": GUID,
                "cap_mask1": CAPABILITIES,
                "cap_mask1_field_select": 0xFFFFFFFF,
                "lid": LID,
                "sm_lid": SM_LID,
                "subnet_timeout": 18,
            }
        )

    @command("MODIFY_HCA_VPORT_CONTEXT")
    def modify_context(self, request: View, reply: View) -> None:
        """Accept: nothing depends on it here."""

    @command("QUERY_HCA_VPORT_GID")
    def query_gid(self, request: View, reply: View) -> None:
        """Return the GID of an index: the first is the link-local one, the rest are zero."""
        index = request["gid_index"]
        first = (GID_PREFIX << 64 | GUID).to_bytes(16, "big")
        table = first + bytes(16 * (GIDS - 1))
        gids = table if index == 0xFFFF else table[16 * index : 16 * index + 16] or bytes(16)
        reply["gids_num"] = len(gids) // 16
        room = reply.bytes("gid")
        room[: len(gids)] = gids[: len(room)]

    @command("QUERY_HCA_VPORT_PKEY")
    def query_pkey(self, request: View, reply: View) -> None:
        """Return the P_Key of an index: the first is the default one, the rest are zero."""
        index = request["pkey_index"]
        table = PKEY.to_bytes(2, "big") + bytes(2 * (PKEYS - 1))
        pkeys = table if index == 0xFFFF else table[2 * index : 2 * index + 2] or bytes(2)
        room = bytearray(4 * (len(pkeys) // 2))
        for slot in range(len(pkeys) // 2):
            room[4 * slot + 2 : 4 * slot + 4] = pkeys[2 * slot : 2 * slot + 2]
        data = reply.bytes("pkey")
        data[: len(room)] = room[: len(data)]

    @command("QUERY_VPORT_STATE")
    def query_vport_state(self, request: View, reply: View) -> None:
        """Return up."""
        reply["state"] = reply["admin_state"] = 1

    @command("MAD_IFC")
    def mad_ifc(self, request: View, reply: View) -> None:
        """Answer every MAD with "attribute not supported": there is no subnet."""
        mad = reply.bytes("response_mad_packet")
        mad[:] = request.bytes("mad")
        mad[4:6] = UNSUPPORTED_ATTRIBUTE.to_bytes(2, "big")
