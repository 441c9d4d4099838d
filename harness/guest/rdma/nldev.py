"""RDMA netlink (family RDMA_NL_NLDEV) on pyroute2's message classes: devices, links, resource counts.

The messages are pyroute2's, the socket is a plain one: no event loop runs, so reading counts costs the same number of
instructions every time. `bring_up` uses pyroute2's IPRoute for the network interface, in preparation only.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
import time
from typing import Any, Dict, Iterator, List, NamedTuple

from pyroute2.netlink import nla, nlmsg

NETLINK_RDMA = 20
RDMA_NL_NLDEV = 5

# Ref: Linux 7.3 include/uapi/rdma/rdma_netlink.h, enum rdma_nldev_command
CMD_GET = 1
CMD_NEWLINK = 3
CMD_DELLINK = 4
CMD_PORT_GET = 5
CMD_RES_GET = 9
CMD_RES_MR_GET = 13
CMD_STAT_GET = 17

# Ref: Linux 7.3 include/rdma/ib_verbs.h, enum ib_port_state
PORT_ACTIVE = 4
# Ref: Linux 7.3 include/uapi/rdma/rdma_netlink.h, RDMA_NLDEV_ATTR_RES_MR, selects the object of STAT_GET
STAT_RES_MR = 40

NLM_F_REQUEST = 0x1
NLM_F_ACK = 0x4
NLM_F_DUMP = 0x300
NLMSG_ERROR = 2
NLMSG_DONE = 3
_HEADER = struct.Struct("=IHHII")
_BUFFER_BYTES = 1 << 16

INTERFACE = "odp0"
INTERFACE_MAC = "02:00:00:00:00:01"
INTERFACE_IPV4 = "10.9.0.1"
# Fits a packet of 4096 bytes and its headers, so that the device offers every path MTU.
INTERFACE_MTU = 9000


class SummaryEntry(nla):  # type: ignore[misc]  # pyroute2 has no type hints
    """The number of objects of one kind (pd, cq, qp, cm_id, mr, ctx, srq)."""

    nla_map = (
        (17, "RES_SUMMARY_ENTRY_NAME", "asciiz"),
        (18, "RES_SUMMARY_ENTRY_CURR", "uint64"),
    )


class Summary(nla):  # type: ignore[misc]
    """RES_SUMMARY: one entry a kind of object."""

    nla_map = ((16, "RES_SUMMARY_ENTRY", "entry"),)
    entry = SummaryEntry


class HwCounter(nla):  # type: ignore[misc]
    """One named counter."""

    nla_map = (
        (82, "STAT_HWCOUNTER_ENTRY_NAME", "asciiz"),
        (83, "STAT_HWCOUNTER_ENTRY_VALUE", "uint64"),
    )


class HwCounters(nla):  # type: ignore[misc]
    """STAT_HWCOUNTERS: one entry a counter."""

    nla_map = ((81, "STAT_HWCOUNTER_ENTRY", "entry"),)
    entry = HwCounter


class Region(nla):  # type: ignore[misc]
    """One memory region: its number among the device's resources, and its key (shown to CAP_NET_ADMIN only)."""

    nla_map = (
        (43, "RES_LKEY", "uint32"),
        (62, "RES_MRN", "uint32"),
    )


class Regions(nla):  # type: ignore[misc]
    """RES_MR: one entry a memory region."""

    nla_map = ((41, "RES_MR_ENTRY", "entry"),)
    entry = Region


class RdmaMessage(nlmsg):  # type: ignore[misc]
    """A message of the RDMA_NL_NLDEV client: no header of its own, attributes only.

    Ref: Linux 7.3 include/uapi/rdma/rdma_netlink.h, enum rdma_nldev_attr
    """

    nla_map = (
        (1, "DEV_INDEX", "uint32"),
        (2, "DEV_NAME", "asciiz"),
        (3, "PORT_INDEX", "uint32"),
        (12, "PORT_STATE", "uint8"),
        (15, "RES_SUMMARY", "summary"),
        (40, "RES_MR", "regions"),
        (50, "NDEV_INDEX", "uint32"),
        (51, "NDEV_NAME", "asciiz"),
        (62, "RES_MRN", "uint32"),
        (65, "LINK_TYPE", "asciiz"),
        (75, "STAT_RES", "uint32"),
        (80, "STAT_HWCOUNTERS", "counters"),
    )
    summary = Summary
    regions = Regions
    counters = HwCounters


class Device(NamedTuple):
    """An RDMA device: its index in netlink and its name."""

    number: int
    name: str


def message_type(command: int) -> int:
    """Return RDMA_NL_GET_TYPE(RDMA_NL_NLDEV, command)."""
    return RDMA_NL_NLDEV << 10 | command


def encode(command: int, flags: int, sequence: int, attributes: Dict[str, Any]) -> bytes:
    """Encode one request; `attributes` are named as in RdmaMessage.nla_map."""
    message = RdmaMessage()
    message["header"]["type"] = message_type(command)
    message["header"]["flags"] = NLM_F_REQUEST | flags
    message["header"]["sequence_number"] = sequence
    message["attrs"] = list(attributes.items())
    message.encode()
    return bytes(message.data)


def split(data: bytes) -> Iterator[bytes]:
    """Yield the messages of one datagram, each with its header."""
    at = 0
    while at + _HEADER.size <= len(data):
        length = _HEADER.unpack_from(data, at)[0]
        if length < _HEADER.size or at + length > len(data):
            raise ValueError(f"netlink message of {length} bytes in a datagram of {len(data)}, at {at}")
        yield data[at : at + length]
        at += (length + 3) & ~3


def decode(data: bytes) -> RdmaMessage:
    """Decode one reply of RDMA_NL_NLDEV."""
    message = RdmaMessage(data)
    message.decode()
    return message


class NlDev:
    """A socket to RDMA_NL_NLDEV; raises OSError with the kernel's errno."""

    def __init__(self) -> None:
        self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, NETLINK_RDMA)
        self._socket.bind((0, 0))
        self._sequence = 0

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()

    def request(self, command: int, flags: int = 0, **attributes: Any) -> List[RdmaMessage]:
        """Send one command; return its replies: one for a get, all for a dump, none for a change."""
        self._sequence += 1
        self._socket.send(encode(command, flags, self._sequence, attributes))
        answers: List[RdmaMessage] = []
        while True:
            for data in split(self._socket.recv(_BUFFER_BYTES)):
                _, kind, _, sequence, _ = _HEADER.unpack_from(data)
                if sequence != self._sequence:
                    continue
                if kind == NLMSG_DONE:
                    return answers
                if kind == NLMSG_ERROR:
                    code = struct.unpack_from("=i", data, _HEADER.size)[0]
                    if code:
                        raise OSError(-code, f"RDMA netlink command {command}: {os.strerror(-code)}")
                    return answers
                answers.append(decode(data))
                if not flags & (NLM_F_DUMP | NLM_F_ACK):
                    return answers

    def devices(self) -> List[Device]:
        """Return all RDMA devices."""
        replies = self.request(CMD_GET, NLM_F_DUMP)
        return [Device(m.get_attr("DEV_INDEX"), m.get_attr("DEV_NAME")) for m in replies]

    def device(self, name: str) -> Device:
        """Return the device of that name; LookupError lists those that exist."""
        devices = self.devices()
        for device in devices:
            if device.name == name:
                return device
        raise LookupError(
            f"no RDMA device {name!r}; there are: {', '.join(d.name for d in devices) or 'none'}"
        )

    def add_link(self, name: str, kind: str, interface: str) -> None:
        """Add a software device of `kind` (rxe, siw) on a network interface."""
        self.request(CMD_NEWLINK, NLM_F_ACK, DEV_NAME=name, LINK_TYPE=kind, NDEV_NAME=interface)

    def remove_link(self, name: str) -> None:
        """Remove a software device."""
        self.request(CMD_DELLINK, NLM_F_ACK, DEV_INDEX=self.device(name).number)

    def port_state(self, device: Device, port: int = 1) -> int:
        """Return the state of a port, as PORT_ACTIVE."""
        answer = self.request(CMD_PORT_GET, DEV_INDEX=device.number, PORT_INDEX=port)[0]
        return int(answer.get_attr("PORT_STATE"))

    def wait_active(self, device: Device, timeout_s: float = 10.0) -> None:
        """Wait until port 1 is active; TimeoutError has the last state."""
        deadline = time.monotonic() + timeout_s
        while True:
            state = self.port_state(device)
            if state == PORT_ACTIVE:
                return
            if time.monotonic() > deadline:
                raise TimeoutError(f"port 1 of {device.name} is in state {state} after {timeout_s} s")
            time.sleep(0.02)

    def resources(self, device: Device) -> Dict[str, int]:
        """Count the device's objects of each kind: pd, cq, qp, cm_id, mr, ctx, srq."""
        answer = self.request(CMD_RES_GET, DEV_INDEX=device.number)[0]
        summary = answer.get_attr("RES_SUMMARY")
        return {
            entry.get_attr("RES_SUMMARY_ENTRY_NAME"): int(entry.get_attr("RES_SUMMARY_ENTRY_CURR"))
            for entry in (summary.get_attrs("RES_SUMMARY_ENTRY") if summary is not None else [])
        }

    def mr_number(self, device: Device, lkey: int) -> int:
        """Return the number of the memory region with that key; OSError(ENOENT) if there is none."""
        for answer in self.request(CMD_RES_MR_GET, NLM_F_DUMP, DEV_INDEX=device.number):
            regions = answer.get_attr("RES_MR")
            for region in regions.get_attrs("RES_MR_ENTRY") if regions is not None else ():
                if region.get_attr("RES_LKEY") == lkey:
                    return int(region.get_attr("RES_MRN"))
        raise OSError(errno.ENOENT, f"{device.name} has no memory region with lkey {lkey:#x}")

    def mr_counters(self, device: Device, mr_number: int) -> Dict[str, int]:
        """Return the counters of one memory region (mlx5: page_faults, page_invalidations...); {} if it has none."""
        attributes = {"DEV_INDEX": device.number, "STAT_RES": STAT_RES_MR, "RES_MRN": mr_number}
        counters = self.request(CMD_STAT_GET, **attributes)[0].get_attr("STAT_HWCOUNTERS")
        return {
            entry.get_attr("STAT_HWCOUNTER_ENTRY_NAME"): int(entry.get_attr("STAT_HWCOUNTER_ENTRY_VALUE"))
            for entry in (counters.get_attrs("STAT_HWCOUNTER_ENTRY") if counters is not None else [])
        }


def bring_up(name: str, kind: str = "rxe") -> Device:
    """Create a software device of `kind` on a dummy interface with an IPv4 address; wait until its port is active.

    A device of that name that exists already is used as it is.
    """
    nldev = NlDev()
    try:
        if all(device.name != name for device in nldev.devices()):
            _dummy_interface()
            nldev.add_link(name, kind, INTERFACE)
        device = nldev.device(name)
        nldev.wait_active(device)
        return device
    finally:
        nldev.close()


def _dummy_interface() -> None:
    from pyroute2 import IPRoute

    with IPRoute() as route:
        if not route.link_lookup(ifname=INTERFACE):
            route.link("add", ifname=INTERFACE, kind="dummy", address=INTERFACE_MAC, mtu=INTERFACE_MTU)
        index = route.link_lookup(ifname=INTERFACE)[0]
        route.link("set", index=index, state="up")
        if not route.get_addr(index=index, address=INTERFACE_IPV4):
            route.addr("add", index=index, address=INTERFACE_IPV4, prefixlen=24)
