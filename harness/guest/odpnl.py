"""The generic netlink family of kmod/ (mlx5_odp_test.ko) on pyroute2's message classes, typed.

    with odpnl.own(device) as faults:
        for fault in faults:
            fault.resume(error=False)

Numbers are those of kmod/uapi/mlx5_odp_test.h.
"""

from __future__ import annotations

import contextlib
import os
import socket
import struct
from dataclasses import dataclass
from typing import Any, Dict, Iterator, List, Optional, Tuple

from pyroute2.netlink import ctrlmsg, genlmsg, nla

from harness.guest.nldev import NLM_F_ACK, NLM_F_DUMP, NLM_F_REQUEST, NLMSG_DONE, NLMSG_ERROR, split

FAMILY, GROUP, VERSION = "mlx5_odp_test", "events", 1
NETLINK_GENERIC = 16
GENL_ID_CTRL, CTRL_CMD_GETFAMILY = 16, 3
SOL_NETLINK = 270
ADD_MEMBERSHIP, BROADCAST_ERROR, CAP_ACK, EXT_ACK = 1, 4, 10, 11
"""Socket options. Ref: Linux 7.2 include/uapi/linux/netlink.h"""
SO_RCVBUFFORCE = 33
"""Ref: Linux 7.2 include/uapi/asm-generic/socket.h"""

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
)

_ERROR = struct.Struct("=IHHIIi")
_ACK_HEADER = 16
_MESSAGE, _OFFSET = 1, 2
_BUFFER_BYTES = 1 << 16
RECEIVE_BYTES = 16 << 20


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
    """The module said no: errno, its own words, and the attribute that it means (or "")."""

    def __init__(self, number: int, words: str, attribute: str) -> None:
        super().__init__(number, words or os.strerror(number))
        self.words, self.attribute = words, attribute


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
    """An ODP page: as the device gave it, mlx5_core's copy of it, and the module's reading of the first.

    `words` has for "transport" and "memory" the operations (WORDS) of each transport that has some.
    """

    raw: bytes
    driver: bytes
    words: Dict[str, Dict[str, Tuple[str, ...]]]
    memory_scheme: bool


@dataclass(frozen=True)
class Resumed:
    """A device's answer to a resume: command status and syndrome, 0 both if it took it."""

    status: int
    syndrome: int


class Fault:
    """An event of a page fault: `fields` has what the form has, named as the attributes in lower case."""

    def __init__(self, message: Message, family: Family) -> None:
        self._family = family
        self.fields: Dict[str, Any] = {
            name.lower(): value for name, value in message["attrs"] if name in _KNOWN
        }
        if "raw" in self.fields:
            self.fields["raw"] = bytes(self.fields["raw"])
        self.device: str = self.fields["device"]
        self.source = SOURCES[self.fields["source"]]
        self.action = ACTIONS[self.fields["action"]]
        self.form = FORMS[self.fields["form"]]
        self.error = "error" in self.fields

    @property
    def sub_type(self) -> str:
        """One of SUB_TYPES, or the number of one that is not known."""
        number = self.fields["sub_type"]
        return SUB_TYPES[number] if number < len(SUB_TYPES) else str(number)

    def resume(self, error: bool = False) -> Resumed:
        """Let the card go on, or with `error` fail the operation."""
        fields = self.fields
        return self._family.resume(
            self.device, self.form, fields["token"], fields["type"], fields["queue"], error=error
        )


_KNOWN = frozenset(NAMES.values())


class Family:
    """A conversation with the module; Refused with its words when it does not like a request.

    FileNotFoundError if the module is not loaded.
    """

    def __init__(self) -> None:
        self._socket = _open()
        self._sequence = 0
        found = self._request(GENL_ID_CTRL, CTRL_CMD_GETFAMILY, 0, {"CTRL_ATTR_FAMILY_NAME": FAMILY}, ctrlmsg)
        self.number = int(found[0].get_attr("CTRL_ATTR_FAMILY_ID"))
        groups = found[0].get_attr("CTRL_ATTR_MCAST_GROUPS") or ()
        self.groups = {
            group.get_attr("CTRL_ATTR_MCAST_GRP_NAME"): int(group.get_attr("CTRL_ATTR_MCAST_GRP_ID"))
            for group in groups
        }

    def __enter__(self) -> Family:
        return self

    def __exit__(self, *details: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()

    def request(self, command: int, flags: int = NLM_F_ACK, **attributes: Any) -> List[Message]:
        """One command and its answers; `attributes` as in NAMES."""
        found: List[Message] = self._request(self.number, command, flags, attributes, Message)
        return found

    def devices(self) -> List[Device]:
        """All cards."""
        return [_device(message) for message in self.request(GET_DEVICE, NLM_F_DUMP)]

    def device(self, name: str) -> Device:
        """One card."""
        return _device(self.request(GET_DEVICE, DEVICE=name)[0])

    def caps(self, name: str) -> Dict[str, CapsPage]:
        """The pages "max" and "cur"."""
        message = self.request(GET_CAPS, DEVICE=name)[0]
        return {which.lower(): _caps(message, which) for which in ("MAX", "CUR")}

    def mode(self, name: str, mode: str, pagefault_size: Optional[int] = None) -> None:
        """Set the mode; `observe` needs the size of mlx5_ib's struct mlx5_pagefault (see btf.size_of)."""
        more = {} if pagefault_size is None else {"PAGEFAULT_SIZE": pagefault_size}
        self.request(SET_MODE, DEVICE=name, MODE=MODES.index(mode), **more)

    def policy(
        self, name: str, action: str, selector: str = "any", value: int = 0, delay_us: int = 0
    ) -> None:
        """Set what is done with faults that the selector names."""
        more = {} if selector == "any" else {"VALUE": value}
        if action == "delay":
            more["DELAY_US"] = delay_us
        chosen = {"SELECTOR": SELECTORS.index(selector), "ACTION": ACTIONS.index(action)}
        self.request(SET_POLICY, DEVICE=name, **chosen, **more)

    def forget(self, name: str, selector: Optional[str] = None, value: int = 0) -> None:
        """Delete one policy, or all."""
        more = {} if selector is None else {"SELECTOR": SELECTORS.index(selector)}
        if selector not in (None, "any"):
            more["VALUE"] = value
        self.request(DEL_POLICY, DEVICE=name, **more)

    def resume(
        self, name: str, form: str, token: int = 0, kind: int = 0, queue: int = 0, error: bool = False
    ) -> Resumed:
        """Resume in one of FORMS: what that form has of token, type and queue is sent."""
        fields: Dict[str, Any] = {"DEVICE": name, "FORM": FORMS.index(form)}
        if form != "2015":
            fields["TOKEN"] = token
        if form != "memory":
            fields.update(TYPE=kind, QUEUE=queue)
        if error:
            fields["ERROR"] = True
        message = self.request(RESUME, **fields)[0]
        return Resumed(message.get_attr("STATUS"), message.get_attr("SYNDROME"))

    def listen(self, receive_bytes: int = RECEIVE_BYTES) -> Listener:
        """A listener for events of all cards; hears what happens from now on."""
        return Listener(self, receive_bytes)

    def _request(
        self, kind: int, command: int, flags: int, attributes: Dict[str, Any], answer: Any
    ) -> List[Any]:
        self._sequence += 1
        message = answer()
        message["header"]["type"] = kind
        message["header"]["flags"] = NLM_F_REQUEST | flags
        message["header"]["sequence_number"] = self._sequence
        message["cmd"], message["version"] = command, VERSION
        message["attrs"] = list(attributes.items())
        message.encode()
        self._socket.send(bytes(message.data))
        return self.answers(self._sequence, bool(flags & (NLM_F_DUMP | NLM_F_ACK)), answer)

    def send_raw(self, data: bytes) -> None:
        """Send bytes as they are; what comes back is read and forgotten."""
        self._socket.send(data)
        with contextlib.suppress(BlockingIOError):
            while True:
                self._socket.recv(_BUFFER_BYTES, socket.MSG_DONTWAIT)

    def answers(self, sequence: int, to_end: bool, answer: Any) -> List[Any]:
        """What came back for a request, up to its end; Refused if that was a no."""
        found: List[Any] = []
        while True:
            for data in split(self._socket.recv(_BUFFER_BYTES)):
                kind, number = struct.unpack_from("=H2xI", data, 4)
                if number != sequence:
                    continue
                if kind == NLMSG_DONE:
                    return found
                if kind == NLMSG_ERROR:
                    _raise(data)
                    return found
                decoded = answer(data)
                decoded.decode()
                found.append(decoded)
                if not to_end:
                    return found


class Listener:
    """Iterates over events as they come; `timeout_s` (None: for ever) ends the iteration when nothing comes."""

    timeout_s: Optional[float] = None

    def __init__(self, family: Family, receive_bytes: int) -> None:
        self._family = family
        self.lost = 0
        self._socket = _open()
        # Root may have more than the limit.
        with contextlib.suppress(PermissionError):
            self._socket.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, receive_bytes)
        # Only then does the kernel tell the module that this socket had no room.
        self._socket.setsockopt(SOL_NETLINK, BROADCAST_ERROR, 1)
        self._socket.setsockopt(SOL_NETLINK, ADD_MEMBERSHIP, family.groups[GROUP])

    def __iter__(self) -> Iterator[Fault]:
        return self

    def __next__(self) -> Fault:
        while True:
            self._socket.settimeout(self.timeout_s)
            try:
                data = self._socket.recv(_BUFFER_BYTES)
            except socket.timeout:
                raise StopIteration from None
            except OSError as error:
                if error.errno != 105:  # ENOBUFS: some were lost, the next one comes
                    raise
                self.lost += 1
                continue
            message = Message(data)
            message.decode()
            return Fault(message, self._family)

    def close(self) -> None:
        """Hear no more."""
        self._socket.close()


@contextlib.contextmanager
def own(name: str, timeout_s: Optional[float] = None) -> Iterator[Listener]:
    """The page faults of a card in this program's hands, until the end of the block."""
    with Family() as family:
        faults = family.listen()
        faults.timeout_s = timeout_s
        try:
            family.policy(name, "forward")
            family.mode(name, "own")
            yield faults
        finally:
            with contextlib.suppress(OSError):  # the card may be gone
                family.mode(name, "off")
                family.forget(name)
            faults.close()


def _open() -> socket.socket:
    opened = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, NETLINK_GENERIC)
    opened.bind((0, 0))
    opened.setsockopt(SOL_NETLINK, EXT_ACK, 1)
    opened.setsockopt(SOL_NETLINK, CAP_ACK, 1)
    return opened


def _raise(data: bytes) -> None:
    """Raise what an NLMSG_ERROR says; its errno 0 is a yes."""
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


def _device(message: Message) -> Device:
    stats = message.get_attr("STATS")
    return Device(
        message.get_attr("DEVICE"),
        FORMS[message.get_attr("FORM")],
        MODES[message.get_attr("MODE")],
        message.get_attr("QUEUED"),
        {name: int(stats.get_attr(name)) for name in STATS},
    )


def _caps(message: Message, which: str) -> CapsPage:
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
