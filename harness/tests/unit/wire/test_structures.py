"""Compare eqe, cqe, wqe and y2015 with the same structures in each kernel's BTF."""

import pytest

from harness.tests.unit.wire import kernels
from harness.wire import cqe, eqe, wqe, y2015
from harness.wire.bits import Field, Struct

# our field -> the kernel's member, whose bytes must hold it
TABLE = {
    "mlx5_eqe": [
        (eqe.Eqe, {"type": "type", "sub_type": "sub_type", "signature": "signature", "owner": "owner"}),
        (eqe.CompletionEqe, {"cqn": "data.comp.cqn"}),
        (eqe.CommandEqe, {"vector": "data.cmd.vector"}),
        (
            eqe.PageRequestEqe,
            {"ec_function": "data.req_pages.ec_function", "func_id": "data.req_pages.func_id"},
        ),
        (eqe.PageRequestEqe, {"num_pages": "data.req_pages.num_pages"}),
        (eqe.QpSrqEqe, {"queue_type": "data.qp_srq.type", "qp_srq_n": "data.qp_srq.qp_srq_n"}),
        (eqe.CqErrorEqe, {"cqn": "data.cq_err.cqn", "syndrome": "data.cq_err.syndrome"}),
        (eqe.PortEqe, {"port": "data.port.port"}),
    ],
    "mlx5_eqe_page_fault": [
        (eqe.PageFaultWqeEqe, {"wqe_index": "wqe.wqe_index", "packet_length": "wqe.packet_length"}),
        (eqe.PageFaultWqeEqe, {"token": "wqe.token", "pf_type": "wqe.pftype_wq", "wq": "wqe.pftype_wq"}),
        (eqe.PageFaultRdmaEqe, {"r_key": "rdma.r_key", "packet_length": "rdma.packet_length"}),
        (eqe.PageFaultRdmaEqe, {"op_length": "rdma.rdma_op_len", "va": "rdma.rdma_va"}),
        (eqe.PageFaultRdmaEqe, {"pf_type": "rdma.pftype_token", "token": "rdma.pftype_token"}),
        (eqe.PageFaultWqeEqe, {"bytes_committed": "wqe.bytes_committed|bytes_committed"}),
        (y2015.PageFaultWqeEqe, {"wqe_index": "wqe.wqe_index", "flags_qpn": "wqe.pftype_wq"}),
        (
            y2015.PageFaultRdmaEqe,
            {"r_key": "rdma.r_key", "rdma_va": "rdma.rdma_va", "qpn": "rdma.pftype_token"},
        ),
        (eqe.PageFaultMemoryEqe, {"last": "memory.flags?", "post_pages": "memory.post_demand_fault_pages?"}),
        (eqe.PageFaultMemoryEqe, {"pre_pages": "memory.pre_demand_fault_pages?", "mkey": "memory.mkey?"}),
        (eqe.PageFaultMemoryEqe, {"token_high": "memory.token47_32?", "token_low": "memory.token31_0?"}),
        (eqe.PageFaultMemoryEqe, {"demand_pages": "memory.demand_fault_pages?", "va": "memory.va?"}),
    ],
    "mlx5_cqe64": [
        (cqe.Cqe, {"slid": "slid", "rqpn": "flags_rqpn", "rx_flags": "flags_rqpn", "srqn_uidx": "srqn"}),
        (cqe.Cqe, {"byte_count": "byte_cnt", "wqe_opcode": "sop_drop_qpn", "qpn": "sop_drop_qpn"}),
        (
            cqe.Cqe,
            {"wqe_counter": "wqe_counter", "opcode": "op_own", "owner": "op_own", "ml_path": "ml_path"},
        ),
        (cqe.Cqe, {"immediate": "immediate|imm_inval_pkey", "solicited": "op_own", "format": "op_own"}),
    ],
    "mlx5_err_cqe": [
        (cqe.ErrorCqe, {"srqn_uidx": "srqn", "vendor_syndrome": "vendor_err_synd", "syndrome": "syndrome"}),
        (cqe.ErrorCqe, {"wqe_opcode": "s_wqe_opcode_qpn", "qpn": "s_wqe_opcode_qpn", "owner": "op_own"}),
        (cqe.ErrorCqe, {"wqe_counter": "wqe_counter", "opcode": "op_own"}),
    ],
    "mlx5_wqe_ctrl_seg": [
        (
            wqe.Control,
            {"opmod": "opmod_idx_opcode", "wqe_index": "opmod_idx_opcode", "opcode": "opmod_idx_opcode"},
        ),
        (
            wqe.Control,
            {"qpn": "qpn_ds", "ds": "qpn_ds", "completion": "fm_ce_se", "general_id": "general_id|imm"},
        ),
    ],
    "mlx5_wqe_umr_ctrl_seg": [
        (wqe.UmrControl, {"flags": "flags", "xlt_octowords": "xlt_octowords", "mkey_mask": "mkey_mask"}),
        (wqe.UmrControl, {"offset_low": "xlt_offset", "offset_high": "xlt_offset_47_16"}),
    ],
    "mlx5_wqe_data_seg": [(wqe.Data, {"byte_count": "byte_count", "lkey": "lkey", "address": "addr"})],
    "mlx5_wqe_raddr_seg": [(wqe.RemoteAddress, {"address": "raddr", "rkey": "rkey"})],
    "mlx5_wqe_xrc_seg": [(wqe.Xrc, {"srqn": "xrc_srqn"})],
    "mlx5_wqe_srq_next_seg": [(wqe.SrqNext, {"next_wqe_index": "next_wqe_index", "signature": "signature"})],
    "mlx5_klm": [(wqe.Klm, {"byte_count": "bcount", "key": "key", "address": "va"})],
    "mlx5_av": [
        (
            wqe.AddressVector,
            {"qkey": "key.qkey.qkey", "dqpn": "dqp_dct", "extended": "dqp_dct", "sl": "stat_rate_sl"},
        ),
        (
            wqe.AddressVector,
            {"mlid": "fl_mlid", "rlid": "rlid", "tclass": "tclass", "hop_limit": "hop_limit"},
        ),
        (wqe.AddressVector, {"grh": "grh_gid_fl", "sgid_index": "grh_gid_fl", "flow_label": "grh_gid_fl"}),
        (wqe.AddressVector, {"rgid": "rgid"}),
    ],
}


@kernels.each_kernel
@pytest.mark.parametrize("name", TABLE)
def test_fields_lie_in_the_members_of_the_kernel(kernel, name):
    """Mutation: move any Field of this table to the neighbouring word."""
    members = kernels.structure(kernel, name)
    if members is None:
        pytest.skip(f"no module's BTF has {name}")
    base = 0x20 if name == "mlx5_eqe_page_fault" else 0
    for structure, pairs in TABLE[name]:
        for ours, theirs in pairs.items():
            field = structure.fields[ours]
            known = [member for member in theirs.rstrip("?").split("|") if member in members]
            if not known and theirs.endswith("?"):
                continue
            offset, size = members[known[0]]
            begin, end = field.byte - base, field.byte - base + field.length
            assert offset <= begin and end <= offset + size, (structure.__name__, ours)
            assert field.shift + field.bits <= 8 * size


@kernels.each_kernel
def test_the_odp_page_of_2015_is_todays_transport_scheme(kernel):
    """Compare four bits per transport with mlx5_ifc.h. Mutation: swap two shifts in OdpCaps."""
    layouts = kernels.layouts(kernel)
    caps = layouts["odp_cap"]
    prefix = "transport_page_fault_scheme_cap." if caps.has("transport_page_fault_scheme_cap") else ""
    for name, field in y2015.OdpCaps.fields.items():
        transport, operation = name.split("_")
        slot = caps.slot(f"{prefix}{transport}_odp_caps.{operation}")
        assert slot.offset == field.byte * 8 + 7 - field.shift, name


@kernels.each_kernel
def test_the_resume_of_2015_has_todays_bits(kernel):
    """Mutation: move ResumeIn.error."""
    layouts = kernels.layouts(kernel)
    request = layouts["page_fault_resume_in"]
    prefix = "page_fault_info.trans_page_fault_info." if request.has("page_fault_info") else ""
    slot = request.slot(prefix + "error")
    assert slot.offset == y2015.ResumeIn.error.byte * 8
    assert request.slot(prefix + "page_fault_type").offset == 0x40 + 5
    assert layouts.value("MLX5_CMD_OP_PAGE_FAULT_RESUME") == y2015.PAGE_FAULT_RESUME
    assert layouts["create_mkey_in"].slot("pg_access").offset == y2015.CreateMkeyIn.pg_access.byte * 8


def test_flags_and_qpn_of_2015_share_a_word():
    """Mutation: give flags_qpn another byte."""
    event = y2015.PageFaultWqeEqe.new(
        flags_qpn=(y2015.RESUME_REQUESTOR | y2015.RESUME_RDMA) << y2015.QPN_BITS | 0xABCDEF
    )
    assert (event.requestor, event.write, event.rdma, event.qpn) == (1, 0, 1, 0xABCDEF)
    assert y2015.ResumeIn.new(qpn=5, error=1).flags == y2015.RESUME_ERROR


class Sample(Struct, size=8):
    """A structure for the tests below."""

    word = Field(byte=0, bits=24)
    low = Field(byte=3, bits=4)
    high = Field(byte=3, bits=4, shift=4)
    pages = Field(byte=4, bits=20, shift=12)


def test_writing_a_field_preserves_the_others():
    """Mutation: write the whole word in Field.__set__."""
    sample = Sample(bytearray(b"\xff" * 12), at=4)
    sample.high, sample.pages = 0, 1
    assert bytes(sample) == b"\xff\xff\xff\x0f\x00\x00\x1f\xff" and sample.word == 0xFFFFFF
    assert (sample.low, sample.high, sample.pages) == (15, 0, 1)


def test_wrong_values_names_and_sizes_are_refused():
    """Mutation: cut values to their width."""
    with pytest.raises(ValueError, match="4 bits"):
        Sample.new(low=16)
    with pytest.raises(AttributeError, match="lwo"):
        Sample.new(lwo=1)
    with pytest.raises(ValueError, match="needs 8 bytes"):
        Sample(b"1234567")
    with pytest.raises(TypeError, match="past the structure"):
        type("Odd", (Struct,), {"x": Field(byte=4, bits=8), "__slots__": ()}, size=4)
