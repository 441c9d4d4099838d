"""Numbers and messages of the generic netlink family of kmod/, and its refusals; used by odpnl.py.

Numbers are those of kmod/uapi/mlx5_odp_test.h.
"""

from __future__ import annotations

import os
import socket
import struct
from dataclasses import dataclass
from typing import Dict, Tuple

from pyroute2.netlink import genlmsg, nla

FAMILY, GROUP, VERSION = "mlx5_odp_test", "events", 1
NETLINK_GENERIC = 16
GENL_ID_CTRL, CTRL_CMD_GETFAMILY = 16, 3
SOL_NETLINK = 270
ADD_MEMBERSHIP, BROADCAST_ERROR, CAP_ACK, EXT_ACK = 1, 4, 10, 11
"""Socket options. Ref: Linux 7.2 include/uapi/linux/netlink.h"""
GET_DEVICE, GET_CAPS, SET_MODE, SET_POLICY, DEL_POLICY, RESUME, EVENT = range(1, 8)
FORMS = ("2015", "transport", "memory")
MODES = ("off", "observe", "own")
SELECTORS = ("any", "qpn", "queue", "token", "key")
ACTIONS = ("none", "forward", "resume", "fail", "delay", "drop", "double")
SOURCES = ("own", "observed", "resume")
SUB_TYPES = ("wqe", "rdma", "memory")
WORDS = ("send", "receive", "write", "read", "atomic", "srq_receive")
STATS = (
    "events",
    "handled",
    "forwarded",
    "unresolved",
    "dropped",
    "delayed",
    "lost_memory",
    "overruns",
    "unknown",
    "resumes",
    "resumes_refused",
    "observed",
    "observed_resumes",
    "undecoded",
    "probe_ns",
)

_ERROR = struct.Struct("=IHHIIi")
_ACK_HEADER = 16
_MESSAGE, _OFFSET = 1, 2


class Stats(nla):  # type: ignore[misc]  # pyroute2 has no type hints
    """enum odp_test_stat."""

    nla_map = tuple((number, name, "uint64") for number, name in enumerate(STATS, 1))


class Scheme(nla):  # type: ignore[misc]
    """enum odp_test_transport."""

    nla_map = tuple(
        (number, name, "uint32") for number, name in enumerate(("rc", "uc", "ud", "xrc", "dc"), 1)
    )


class Caps(nla):  # type: ignore[misc]
    """enum odp_test_scheme."""

    nla_map = ((1, "transport", "scheme"), (2, "memory", "scheme"), (3, "mem_page_fault", "uint8"))
    scheme = Scheme


_ATTRIBUTES = (
    ("DEVICE", "asciiz"),
    ("FORM", "uint8"),
    ("MODE", "uint8"),
    ("PAGEFAULT_SIZE", "uint32"),
    ("QUEUED", "uint32"),
    ("STATS", "stats"),
    ("CAPS_MAX", "caps"),
    ("CAPS_CUR", "caps"),
    ("CAPS_MAX_RAW", "cdata"),
    ("CAPS_CUR_RAW", "cdata"),
    ("CAPS_MAX_DRIVER", "cdata"),
    ("CAPS_CUR_DRIVER", "cdata"),
    ("SELECTOR", "uint8"),
    ("VALUE", "uint64"),
    ("ACTION", "uint8"),
    ("DELAY_US", "uint32"),
    ("TOKEN", "uint64"),
    ("TYPE", "uint8"),
    ("QUEUE", "uint32"),
    ("ERROR", "flag"),
    ("STATUS", "uint8"),
    ("SYNDROME", "uint32"),
    ("RET", "int32"),
    ("SOURCE", "uint8"),
    ("SUB_TYPE", "uint8"),
    ("BYTES_COMMITTED", "uint32"),
    ("PACKET_LENGTH", "uint32"),
    ("WQE_INDEX", "uint16"),
    ("RKEY", "uint32"),
    ("OP_LENGTH", "uint32"),
    ("VA", "uint64"),
    ("KEY", "uint32"),
    ("FLAGS", "uint8"),
    ("DEMAND", "uint32"),
    ("PRE", "uint32"),
    ("POST", "uint32"),
    ("RAW", "cdata"),
    ("SEEN_NS", "uint64"),
    ("DISPATCHED_NS", "uint64"),
    ("SENT_NS", "uint64"),
)
NAMES = {number: name for number, (name, _) in enumerate(_ATTRIBUTES, 2)}
"""enum odp_test_attr, by number."""


class Message(genlmsg):  # type: ignore[misc]
    """A message of the family."""

    nla_map = tuple((number, name, kind) for number, (name, kind) in enumerate(_ATTRIBUTES, 2))
    stats = Stats
    caps = Caps


class Refused(OSError):
    """Raised for a refused request: errno, the module's message (`words`), and the attribute at fault (or "")."""

    def __init__(self, number: int, words: str, attribute: str) -> None:
        super().__init__(number, words or os.strerror(number))
        self.words, self.attribute = words, attribute


def open_socket() -> socket.socket:
    """Open a generic netlink socket whose refusals have a message (NETLINK_EXT_ACK)."""
    opened = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, NETLINK_GENERIC)
    opened.bind((0, 0))
    opened.setsockopt(SOL_NETLINK, EXT_ACK, 1)
    opened.setsockopt(SOL_NETLINK, CAP_ACK, 1)
    return opened


def raise_refusal(data: bytes) -> None:
    """Raise Refused for an NLMSG_ERROR, unless it is an acknowledgement (errno 0)."""
    code = _ERROR.unpack_from(data)[5]
    if code == 0:
        return
    words, attribute = "", ""
    at = _ERROR.size + _ACK_HEADER
    while at + 4 <= len(data):
        length, kind = struct.unpack_from("=HH", data, at)
        if length < 4:
            break
        if kind == _MESSAGE:
            words = data[at + 4 : at + length].split(b"\0")[0].decode(errors="replace")
        elif kind == _OFFSET:
            attribute = f"offset {struct.unpack_from('=I', data, at + 4)[0]}"
        at += (length + 3) & ~3
    raise Refused(-code, words, attribute)


@dataclass(frozen=True)
class Device:
    """A card: bus name, the form of its page faults (FORMS), the mode (MODES), statistics by name."""

    name: str
    form: str
    mode: str
    queued: int
    stats: Dict[str, int]


@dataclass(frozen=True)
class CapsPage:
    """An ODP capability page: from the device, mlx5_core's copy of it, and the module's decoding of the first.

    `words` has for "transport" and "memory" the operations (WORDS) of each transport that has some.
    """

    raw: bytes
    driver: bytes
    words: Dict[str, Dict[str, Tuple[str, ...]]]
    memory_scheme: bool


@dataclass(frozen=True)
class Resumed:
    """A card's answer to a resume: command status and syndrome, both 0 on success."""

    status: int
    syndrome: int


def device_of(message: Message) -> Device:
    """Decode a reply of GET_DEVICE."""
    stats = message.get_attr("STATS")
    return Device(
        message.get_attr("DEVICE"),
        FORMS[message.get_attr("FORM")],
        MODES[message.get_attr("MODE")],
        message.get_attr("QUEUED"),
        {name: int(stats.get_attr(name)) for name in STATS},
    )


def caps_of(message: Message, which: str) -> CapsPage:
    """Decode the page MAX or CUR of a reply of GET_CAPS."""
    nest = message.get_attr(f"CAPS_{which}")
    words = {
        scheme: {
            name: tuple(word for bit, word in enumerate(WORDS) if value >> bit & 1)
            for name, value in nest.get_attr(scheme)["attrs"]
            if value
        }
        for scheme in ("transport", "memory")
    }
    return CapsPage(
        bytes(message.get_attr(f"CAPS_{which}_RAW")),
        bytes(message.get_attr(f"CAPS_{which}_DRIVER")),
        words,
        bool(nest.get_attr("mem_page_fault")),
    )
