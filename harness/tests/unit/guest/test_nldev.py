"""Bytes of RDMA netlink messages. Numbers are from Linux 7.3 include/uapi/rdma/rdma_netlink.h."""

import struct

import pytest

from harness.guest.rdma import nldev


def attribute(kind, payload):
    data = struct.pack("=HH", 4 + len(payload), kind) + payload
    return data + bytes(-len(data) % 4)


def message(kind, payload, sequence=1):
    return struct.pack("=IHHII", 16 + len(payload), kind, 0, sequence, 0) + payload


def test_new_link_is_three_strings():
    """Mutation: swap LINK_TYPE and NDEV_NAME in RdmaMessage.nla_map."""
    attributes = {"DEV_NAME": "rxe0", "LINK_TYPE": "rxe", "NDEV_NAME": "odp0"}
    data = nldev.encode(nldev.CMD_NEWLINK, nldev.NLM_F_ACK, 9, attributes)
    body = attribute(2, b"rxe0\0") + attribute(65, b"rxe\0") + attribute(51, b"odp0\0")
    assert data == struct.pack("=IHHII", 16 + len(body), 5 << 10 | 3, 1 | 4, 9, 0) + body


def test_port_request_has_two_numbers():
    data = nldev.encode(nldev.CMD_PORT_GET, 0, 1, {"DEV_INDEX": 3, "PORT_INDEX": 1})
    assert data[16:] == attribute(1, struct.pack("=I", 3)) + attribute(3, struct.pack("=I", 1))


def test_resource_summary_is_nested_twice():
    """Mutation: number RES_SUMMARY_ENTRY_CURR 17."""
    entries = b"".join(
        attribute(16, attribute(17, name + b"\0") + attribute(18, struct.pack("=Q", count)))
        for name, count in ((b"qp", 3), (b"mr", 1 << 33))
    )
    reply = nldev.decode(message(5 << 10 | 9, attribute(1, b"\0\0\0\0") + attribute(15, entries)))
    summary = reply.get_attr("RES_SUMMARY").get_attrs("RES_SUMMARY_ENTRY")
    counts = {e.get_attr("RES_SUMMARY_ENTRY_NAME"): e.get_attr("RES_SUMMARY_ENTRY_CURR") for e in summary}
    assert counts == {"qp": 3, "mr": 1 << 33}


def test_region_has_number_and_key():
    """Mutation: number RES_LKEY 42 (the rkey), or leave RES_MR out of RdmaMessage."""
    entries = b"".join(
        attribute(41, attribute(43, struct.pack("=I", key)) + attribute(62, struct.pack("=I", number)))
        for key, number in ((0x500, 3), (0x655, 9))
    )
    reply = nldev.decode(message(5 << 10 | 13, attribute(1, b"\0\0\0\0") + attribute(40, entries)))
    regions = reply.get_attr("RES_MR").get_attrs("RES_MR_ENTRY")
    assert [(r.get_attr("RES_LKEY"), r.get_attr("RES_MRN")) for r in regions] == [(0x500, 3), (0x655, 9)]


def test_datagram_is_split_at_four_bytes():
    """Mutation: do not round the length up."""
    odd = message(1, b"abc")
    assert list(nldev.split(odd + b"\0" + message(2, b""))) == [odd, message(2, b"")]


@pytest.mark.parametrize("length", [0, 15, 17, 1 << 31])
def test_wrong_length_is_an_error_and_no_loop(length):
    """Mutation: drop the check in split(): length 0 never ends."""
    with pytest.raises(ValueError, match="netlink message of"):
        list(nldev.split(struct.pack("=IHHII", length, 1, 0, 0, 0)))
