"""What a firmware command is made of: its status, its decorator, the base of the classes that hold them."""

from __future__ import annotations

import enum
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from harness.connectx.hca import Hca
    from harness.wire.ifc import View


class Status(enum.IntEnum):
    """What a command ends with. Ref: Linux 7.2 include/linux/mlx5/device.h, MLX5_CMD_STAT_*."""

    OK = 0x00
    INTERNAL = 0x01
    BAD_OP = 0x02
    BAD_PARAM = 0x03
    BAD_SYS_STATE = 0x04
    BAD_RES = 0x05
    RES_BUSY = 0x06
    NOT_READY = 0x07
    EXCEED_LIMIT = 0x08
    BAD_RES_STATE = 0x09
    BAD_INDEX = 0x0A
    NO_RESOURCES = 0x0F
    BAD_QP_STATE = 0x10
    BAD_PACKET = 0x30
    BAD_SIZE_OUTS_CQES = 0x40
    BAD_INPUT_LENGTH = 0x50
    BAD_OUTPUT_LENGTH = 0x51


class FirmwareError(Exception):
    """Ends a command with a status and a syndrome; never leaves the card."""

    def __init__(self, status: Status, syndrome: int = 0, why: str = "") -> None:
        super().__init__(why or status.name)
        self.status = status
        self.syndrome = syndrome


Handler = Callable[["View", "View"], None]
_Method = TypeVar("_Method", bound=Callable[..., None])


class Entry:
    """A command's name, the stem of its two structures in mlx5_ifc.h, and what runs it."""

    def __init__(self, name: str, layout: str, run: Handler) -> None:
        self.name, self.layout, self.run = name, layout, run


def command(*names: str, layout: str = "") -> Callable[[_Method], _Method]:
    """Mark a method as the command(s) of that name, without `MLX5_CMD_OP_`.

    The method takes the request and the reply as views of `<layout>_in` and `<layout>_out` (by default the
    name in lower case), fills the reply and returns None, or raises FirmwareError.
    """

    def mark(method: _Method) -> _Method:
        method.__dict__["commands"] = [(name, layout or name.lower()) for name in names]
        return method

    return mark


class Commands:
    """Base of the classes in `commands/`: methods over the state of one card."""

    def __init__(self, hca: Hca) -> None:
        self.hca = hca

    def entries(self) -> list[Entry]:
        """The commands of this class, bound."""
        found = []
        for attribute in dir(type(self)):
            marked: Any = getattr(type(self), attribute)
            for name, layout in getattr(marked, "commands", ()):
                found.append(Entry(name, layout, getattr(self, attribute)))
        return found


def stub(name: str) -> str:
    """The method somebody would have to write for a command that came and is not known."""
    return f'@command("{name}")\ndef {name.lower()}(self, request: View, reply: View) -> None: ...'
