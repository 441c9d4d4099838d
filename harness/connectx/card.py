"""Card models as tables: PCI identity and firmware capabilities of a ConnectX generation.

Every capability names the place in the driver that reads it.
Paths are of Linux 7.2; `core/` is drivers/net/ethernet/mellanox/mlx5/core, `ib/` is
drivers/infiniband/hw/mlx5.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from harness.errors import UsageError


class Capability(NamedTuple):
    """A field of a capability page (dotted path within it), its maximum, and the code that reads it."""

    field: str
    value: int
    ref: str


@dataclass(frozen=True)
class CardModel:
    """A generation. Sizes in bytes; `odp_scheme` is how its firmware reports page faults:

    `2015` (flags and QPN, resume by both), `transport` (a token per fault) or `memory` (by key and address).
    """

    name: str
    title: str
    device_id: int
    odp_scheme: str
    general: tuple[Capability, ...]
    odp: tuple[Capability, ...]
    atomic: tuple[Capability, ...]
    vendor_id: int = 0x15B3
    subsystem_vendor_id: int = 0x15B3
    subsystem_id: int = 0x0020
    class_code: int = 0x020700
    revision: int = 0
    msix_vectors: int = 16
    bar0_size: int = 32 << 20
    firmware: tuple[int, int, int] = (16, 35, 4030)
    boot_pages: int = 113
    init_pages: int = 769


UAR_SIZE = 4096
"""Bytes of a UAR page. Ref: Linux 7.2 include/linux/mlx5/device.h, MLX5_ADAPTER_PAGE_SIZE."""

FIRST_UAR = 16
"""Pages below belong to the init segment. Ref: Linux 7.2 include/linux/mlx5/device.h, struct
mlx5_init_seg."""

_GENERAL = (
    Capability("port_type", 0, "core/port.c: 0 is InfiniBand; ib/main.c get_port_type"),
    Capability("num_ports", 1, "core/main.c and ib/main.c: ports of the device"),
    Capability(
        "ib_virt", 1, "ib/main.c mlx5_get_vport_access_method: port by HCA vport commands, not by MAD"
    ),
    Capability("vport_group_manager", 1, "core/main.c, core/vport.c: may query its own vport"),
    Capability("pkey_table_size", 0, "core/main.c to_fw_pkey_sz; 0 is 128 entries"),
    Capability("gid_table_size", 0, "ib/main.c mlx5_get_gid_table_len; 0 is 8 entries"),
    Capability("local_ca_ack_delay", 16, "ib/main.c mlx5_ib_query_device"),
    Capability("rc", 1, "ib/odp.c and firmware: reliable connection"),
    Capability("uc", 1, "unreliable connection"),
    Capability("ud", 1, "unreliable datagram"),
    Capability("xrc", 1, "ib/main.c mlx5_ib_dev_res_init: ALLOC_XRCD, without it the probe ends with -95"),
    Capability("apm", 1, "ib/main.c: automatic path migration flag"),
    Capability("pkv", 1, "ib/main.c: bad P_Key counter"),
    Capability("qkv", 1, "ib/main.c: bad Q_Key counter"),
    Capability("imaicl", 1, "ib/main.c: memory windows"),
    Capability("umr_ptr_rlky", 1, "ib/umr.c: lists by pointer with the reserved key"),
    Capability("pg", 1, "ib/odp.c internal_fill_odp_caps: page faults"),
    Capability("atomic", 1, "core/main.c handle_hca_cap_atomic"),
    Capability("fixed_buffer_size", 1, "ib/odp.c: implicit regions"),
    Capability("null_mkey", 1, "ib/odp.c: implicit regions; ib/main.c: null MR"),
    Capability("umr_extended_translation_offset", 1, "ib/odp.c: regions of any size"),
    Capability("compact_address_vector", 1, "ib/main.c, user space: AV without padding"),
    Capability("cqe_version", 1, "ib/main.c, user space: user index in the CQE"),
    Capability("cq_moderation", 1, "ib/main.c query_device: CQ moderation"),
    Capability("cq_resize", 1, "ib/main.c: resize of completion queues"),
    Capability("cq_oi", 1, "ib/cq.c: overrun may be ignored"),
    Capability("cd", 1, "core: completion of QP destruction"),
    Capability("rts2rts_qp_counters_set_id", 1, "ib/counters.c: counters rebind on live QPs"),
    Capability("max_qp_cnt", 0x40, "ib/counters.c: number of counter sets"),
    Capability("log_max_qp", 17, "ib/main.c query_device max_qp"),
    Capability("log_max_qp_sz", 15, "ib/main.c max_qp_wr"),
    Capability("log_max_cq", 16, "ib/main.c max_cq"),
    Capability("log_max_cq_sz", 22, "ib/main.c max_cqe"),
    Capability("log_max_eq", 6, "core/eq.c"),
    Capability("log_max_eq_sz", 22, "core/eq.c"),
    Capability("max_num_eqs", 32, "core/eq.c mlx5_max_eq_cap_get"),
    Capability("log_max_srq", 16, "ib/main.c max_srq"),
    Capability("log_max_srq_sz", 15, "ib/main.c max_srq_wr"),
    Capability("log_max_wq_sz", 15, "ib/qp.c"),
    Capability("log_max_rmp", 16, "ib/srq_cmd.c: an SRQ is an RMP"),
    Capability("basic_cyclic_rcv_wqe", 1, "ib/srq_cmd.c, ib/main.c"),
    Capability("log_max_mkey", 22, "ib/main.c max_mr"),
    Capability("log_max_mrw_sz", 48, "ib/main.c max_mr_size"),
    Capability("log_max_klm_list_size", 17, "ib/mr.c: largest order of the key cache"),
    Capability("max_indirection", 4, "ib/devx.c: keys of keys"),
    Capability("log_max_pd", 20, "ib/main.c max_pd"),
    Capability("log_max_xrcd", 16, "ib/main.c"),
    Capability("log_max_mcg", 8, "ib/main.c max_mcast_grp"),
    Capability("max_qp_mcg", 240, "ib/main.c max_mcast_qp_attach"),
    Capability("log_max_ra_req_qp", 4, "ib/main.c max_qp_init_rd_atom"),
    Capability("log_max_ra_res_qp", 4, "ib/main.c max_qp_rd_atom"),
    Capability("log_max_msg", 30, "ib/qp.c log_msg_max"),
    Capability("max_wqe_sz_sq", 1024, "ib/main.c max_sge"),
    Capability("max_wqe_sz_rq", 512, "ib/main.c max_sge"),
    Capability("log_max_transport_domain", 8, "ib/main.c mlx5_ib_alloc_transport_domain"),
    Capability("log_pg_sz", 12, "core/main.c: pages of 4 KiB"),
    Capability("uar_sz", 5, "core/uar.c: BAR of 2^5 MiB"),
    Capability("log_uar_page_sz", 0, "core/main.c handle_hca_cap: set by the driver, 0 is 4 KiB"),
    Capability("uar_4k", 1, "core/main.c: the driver may ask for 4 KiB pages"),
    Capability("num_of_uars_per_page", 1, "core/uar.c"),
    Capability("bf", 0, "core/wc.c: BlueFlame; with 0 user space rings by 8 bytes and no self-test runs"),
    Capability("log_bf_reg_size", 9, "core/uar.c: distance of doorbells in a UAR"),
    Capability("device_frequency_mhz", 156, "ib/main.c, core/lib/clock.c"),
    Capability("device_frequency_khz", 156250, "ib/main.c hca_core_clock"),
    Capability("log_max_uctx", 16, "ib/devx.c: user contexts"),
    Capability("log_max_umem", 16, "ib/devx.c"),
    Capability("uctx_cap", 0x7F, "ib/devx.c mlx5_ib_devx_create: what a user context may have"),
)

_TRANSPORT = "transport_page_fault_scheme_cap"
_MEMORY = "memory_page_fault_scheme_cap"
_OPERATIONS = {
    "rc": ("send", "receive", "write", "read", "atomic", "srq_receive"),
    "uc": ("send",),
    "ud": ("send", "srq_receive"),
    "xrc": ("send", "receive", "write", "read", "atomic", "srq_receive"),
}
_OPERATIONS_2015 = {"rc": ("send", "receive", "write", "read"), "uc": ("send",), "ud": ("send",)}


def _odp(scheme: str, operations: dict[str, tuple[str, ...]], prefetch: bool) -> tuple[Capability, ...]:
    """Build one scheme's page. Linux 6.1 knows no schemes: there the transport one is the page itself."""
    ref = "ib/odp.c internal_fill_odp_caps, core/main.c handle_hca_cap_odp"
    page = [Capability(f"{scheme}.sig", 1, ref)]
    if prefetch:
        page.append(Capability(f"{scheme}.page_prefetch", 1, "core/main.c: needed for the memory scheme"))
    for transport, names in operations.items():
        page += [Capability(f"{scheme}.{transport}_odp_caps.{name}", 1, ref) for name in names]
    return tuple(page)


_ATOMIC = (
    Capability("supported_atomic_req_8B_endianness_mode_1", 1, "core/main.c handle_hca_cap_atomic"),
    Capability("atomic_operations", 3, "ib/main.c get_atomic_caps: compare-swap and fetch-add"),
    Capability("atomic_size_qp", 8, "ib/main.c get_atomic_caps: 8 bytes"),
)

CONNECTX_5 = CardModel(
    name="connectx-5",
    title="ConnectX-5, page faults by transport",
    device_id=0x1017,
    odp_scheme="transport",
    general=_GENERAL,
    odp=_odp(_TRANSPORT, _OPERATIONS, prefetch=True),
    atomic=_ATOMIC,
)

CONNECTX_7 = CardModel(
    name="connectx-7",
    title="ConnectX-7, page faults by memory key",
    device_id=0x1021,
    odp_scheme="memory",
    general=_GENERAL,
    odp=(
        *_odp(_TRANSPORT, _OPERATIONS, prefetch=True),
        *_odp(_MEMORY, _OPERATIONS, prefetch=True),
        Capability(
            "mem_page_fault", 1, "core/main.c handle_hca_cap_odp: the driver may choose the memory scheme"
        ),
    ),
    atomic=_ATOMIC,
    firmware=(28, 42, 1000),
)

_BLUEFLAME = Capability("bf", 1, "6.1 ib/mem.c mlx5_ib_test_wc: 255 NOPs by BlueFlame when the driver loads")
"""A write to a VM's device is never combined, so the test runs and finds no write combining: as on many
hosts. Later kernels test with an SQ (core/wc.c), of which Connect-IB states none."""

CONNECT_IB = CardModel(
    name="connect-ib",
    title="Connect-IB, page faults as in 2015: four capability bits, flags and QPN; BlueFlame",
    device_id=0x1011,
    odp_scheme="2015",
    general=(*(stated for stated in _GENERAL if stated.field != "bf"), _BLUEFLAME),
    odp=_odp(_TRANSPORT, _OPERATIONS_2015, prefetch=False),
    atomic=_ATOMIC,
    firmware=(10, 16, 1200),
)

MODELS = {model.name: model for model in (CONNECTX_5, CONNECTX_7, CONNECT_IB)}


def model(name: str) -> CardModel:
    """Return the card model of that name; UsageError with the known ones."""
    try:
        return MODELS[name]
    except KeyError:
        raise UsageError(f"no card model {name!r}", hint="one of " + ", ".join(MODELS)) from None
