"""Client of the generic netlink family of kmod/ (mlx5_odp_test.ko); its numbers are in odpnl_messages.py.

with odpnl.own(device) as faults:
    for fault in faults:
        fault.resume(error=False)

"""

from __future__ import annotations

import contextlib
import errno
import socket
import struct
from typing import Any, Dict, Iterator, List, Optional

from pyroute2.netlink import ctrlmsg

from harness.guest.kmod.odpnl_messages import (
    ACTIONS,
    ADD_MEMBERSHIP,
    BROADCAST_ERROR,
    CTRL_CMD_GETFAMILY,
    DEL_POLICY,
    FAMILY,
    FORMS,
    GENL_ID_CTRL,
    GET_CAPS,
    GET_DEVICE,
    GROUP,
    MODES,
    NAMES,
    RESUME,
    SELECTORS,
    SET_MODE,
    SET_POLICY,
    SOL_NETLINK,
    SOURCES,
    SUB_TYPES,
    VERSION,
    CapsPage,
    Device,
    Message,
    Refused,
    Resumed,
    caps_of,
    device_of,
    open_socket,
    raise_refusal,
)
from harness.guest.rdma.nldev import (
    NLM_F_ACK,
    NLM_F_DUMP,
    NLM_F_REQUEST,
    NLMSG_DONE,
    NLMSG_ERROR,
    split,
)

SO_RCVBUFFORCE = 33
"""Ref: Linux 7.2 include/uapi/asm-generic/socket.h"""

_BUFFER_BYTES = 1 << 16
RECEIVE_BYTES = 16 << 20

__all__ = ["Device", "Family", "Fault", "Listener", "Refused", "own"]


class Fault:
    """A page-fault event: `fields` has the attributes of its form, by their names in lower case."""

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
        """Return one of SUB_TYPES, or the number of an unknown one."""
        number = self.fields["sub_type"]
        return SUB_TYPES[number] if number < len(SUB_TYPES) else str(number)

    def resume(self, error: bool = False, **changed: int) -> Resumed:
        """Resume the fault, or with `error` fail the operation.

        `changed` replaces the fields that identify the fault (token, type, queue), to resume something else.
        """
        fields = {**self.fields, **changed}
        return self._family.resume(
            self.device, self.form, fields["token"], fields["type"], fields["queue"], error=error
        )


_KNOWN = frozenset(NAMES.values())


class Family:
    """A socket to the module; Refused with its message if it refuses a request.

    FileNotFoundError if the module is not loaded.
    """

    def __init__(self) -> None:
        self._socket = open_socket()
        self._sequence = 0
        replies = self._request(
            GENL_ID_CTRL, CTRL_CMD_GETFAMILY, 0, {"CTRL_ATTR_FAMILY_NAME": FAMILY}, ctrlmsg
        )
        self.number = int(replies[0].get_attr("CTRL_ATTR_FAMILY_ID"))
        groups = replies[0].get_attr("CTRL_ATTR_MCAST_GROUPS") or ()
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
        """Send one command; return its replies. `attributes` as in NAMES."""
        replies: List[Message] = self._request(self.number, command, flags, attributes, Message)
        return replies

    def devices(self) -> List[Device]:
        """Return all cards."""
        return [device_of(message) for message in self.request(GET_DEVICE, NLM_F_DUMP)]

    def device(self, name: str) -> Device:
        """Return one card."""
        return device_of(self.request(GET_DEVICE, DEVICE=name)[0])

    def caps(self, name: str) -> Dict[str, CapsPage]:
        """Return the capability pages "max" and "cur"."""
        message = self.request(GET_CAPS, DEVICE=name)[0]
        return {which.lower(): caps_of(message, which) for which in ("MAX", "CUR")}

    def mode(self, name: str, mode: str, pagefault_size: Optional[int] = None) -> None:
        """Set the mode; `observe` needs the size of mlx5_ib's struct mlx5_pagefault (see btf.size_of)."""
        more = {} if pagefault_size is None else {"PAGEFAULT_SIZE": pagefault_size}
        self.request(SET_MODE, DEVICE=name, MODE=MODES.index(mode), **more)

    def policy(
        self, name: str, action: str, selector: str = "any", value: int = 0, delay_us: int = 0
    ) -> None:
        """Set the action for the faults that the selector matches."""
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
        """Resume a fault in one of FORMS, with that form's fields of token, type and queue."""
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
        """Subscribe to events of all cards, from now on."""
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
        """Send bytes as they are; drop the replies."""
        self._socket.send(data)
        with contextlib.suppress(BlockingIOError):
            while True:
                self._socket.recv(_BUFFER_BYTES, socket.MSG_DONTWAIT)

    def answers(self, sequence: int, to_end: bool, answer: Any) -> List[Any]:
        """Receive the replies to a request, up to its end; Refused if the module refused it."""
        replies: List[Any] = []
        while True:
            for data in split(self._socket.recv(_BUFFER_BYTES)):
                kind, number = struct.unpack_from("=H2xI", data, 4)
                if number != sequence:
                    continue
                if kind == NLMSG_DONE:
                    return replies
                if kind == NLMSG_ERROR:
                    raise_refusal(data)
                    return replies
                decoded = answer(data)
                decoded.decode()
                replies.append(decoded)
                if not to_end:
                    return replies


class Listener:
    """Iterates over events as they come; `timeout_s` (None: for ever) ends the iteration when nothing comes."""

    timeout_s: Optional[float] = None

    def __init__(self, family: Family, receive_bytes: int) -> None:
        self._family = family
        self.lost = 0
        self._socket = open_socket()
        # Root may have more than the limit.
        with contextlib.suppress(PermissionError):
            self._socket.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, receive_bytes)
        # Without it the module does not learn that this socket's buffer was full.
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
                if error.errno != errno.ENOBUFS:  # some were lost, the next one comes
                    raise
                self.lost += 1
                continue
            message = Message(data)
            message.decode()
            return Fault(message, self._family)

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()


@contextlib.contextmanager
def own(name: str, timeout_s: Optional[float] = None) -> Iterator[Listener]:
    """Take over the page faults of a card until the end of the block."""
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
