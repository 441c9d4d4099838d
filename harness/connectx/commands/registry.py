"""Registry of firmware commands: the decorator, and the base of the classes that hold them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from harness.connectx.device import DeviceState
from harness.wire.ifc import View

Handler = Callable[[View, View], None]
_Method = TypeVar("_Method", bound=Callable[..., None])


class Entry:
    """A command: its name, the stem of its two structures in mlx5_ifc.h, and its handler."""

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
    """Base of the classes in `commands/`."""

    def __init__(self, device: DeviceState) -> None:
        self._device = device

    def entries(self) -> list[Entry]:
        """Return the commands of this class, bound."""
        entries = []
        for attribute in dir(type(self)):
            marked: Any = getattr(type(self), attribute)
            for name, layout in getattr(marked, "commands", ()):
                entries.append(Entry(name, layout, getattr(self, attribute)))
        return entries


def stub(name: str) -> str:
    """Return a stub of the method to write for an unknown command."""
    return f'@command("{name}")\ndef {name.lower()}(self, request: View, reply: View) -> None: ...'
