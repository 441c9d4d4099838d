"""Layouts of firmware structures, read from a kernel's own `mlx5_ifc.h`.

    layouts = ifc.load(folder_of_the_kernel_headers, cache=folder)
    request = layouts["create_cq_in"].view(buffer)
    request["cq_context.log_cq_size"]        # read a field
    reply["cqn"] = 7                         # write one
    request.at("cq_context")                 # a view of the structure inside
    request.bytes("pas")                     # a byte-aligned field as a memoryview; an open array to the end
    layouts.value("MLX5_CMD_OP_CREATE_CQ")   # a value of an enum or a numeric #define

A structure is named without its prefix and suffix (`mlx5_ifc_create_cq_in_bits` is `create_cq_in`), a field
by its dotted path with `[n]` for an element of an array. Offsets count bits from the most significant bit
of byte 0, as the driver's `MLX5_GET` does. Ref: Linux 7.2 include/linux/mlx5/device.h, `__mlx5_bit_off`,
`MLX5_GET`, `MLX5_SET`.
"""

from __future__ import annotations

import contextlib
import difflib
import hashlib
import json
import os
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import NamedTuple, Optional, Union

from harness.errors import SetupError
from harness.wire.ifc_reader import VERSION, Member, read_headers

Buffer = Union[bytes, bytearray, memoryview]
PathLike = Union[str, "os.PathLike[str]"]

HEADERS = ("linux/mlx5/mlx5_ifc_fpga.h", "linux/mlx5/mlx5_ifc.h")
"""The headers to read, in this order, below a kernel's `include` folder."""


class UnknownName(SetupError, KeyError):
    """This kernel's header has no structure, field or value of that name."""


class ShortBuffer(SetupError, ValueError):
    """A field lies past the end of the buffer."""


class Slot(NamedTuple):
    """A resolved field: `offset` and `width` in bits, the type of the structure in it, and its number of elements.

    `elements` is None for a plain field and 0 for an open array. Its bytes are `first` to `last`, its value is above
    `shift` in them, under `mask`.
    """

    offset: int
    width: int
    type: Optional[str]
    elements: Optional[int]
    first: int
    last: int
    shift: int
    mask: int


def _slot(offset: int, width: int, type_name: Optional[str], count: Optional[int]) -> Slot:
    last = (offset + width + 7) >> 3
    return Slot(
        offset, width, type_name, count, offset >> 3, last, last * 8 - offset - width, (1 << width) - 1
    )


def nearest(name: str, known: Iterable[str]) -> str:
    """Write a hint with the names that are spelt most like `name`."""
    close = difflib.get_close_matches(name, list(known), n=3, cutoff=0.5)
    return "nearest: " + ", ".join(close) if close else ""


class Layout:
    """One structure: its size in bits and its fields, each resolved at its first use."""

    def __init__(self, name: str, size: int, members: Mapping[str, Member], layouts: Layouts) -> None:
        self.name = name
        self.size_bits = size
        self.size = (size + 7) // 8
        self.members = members
        self._layouts = layouts
        self._slots: dict[str, Slot] = {}

    def slot(self, path: str) -> Slot:
        """Resolve a field; UnknownName names the missing part and similar names."""
        slot = self._slots.get(path)
        if slot is None:
            slot = self._slots[path] = self._resolve(path)
        return slot

    def has(self, path: str) -> bool:
        """Return whether this kernel's structure has that field."""
        try:
            self.slot(path)
        except UnknownName:
            return False
        return True

    def _resolve(self, path: str) -> Slot:
        head, _, rest = path.partition(".")
        name, _, index = head.partition("[")
        member = self.members.get(name)
        if member is None:
            raise UnknownName(f"{self.name} has no field {name!r}", hint=nearest(name, self.members))
        offset, width, type_name, count = member
        if index:
            element = int(index.rstrip("]"), 0)
            if count is None or (count and element >= count):
                raise UnknownName(f"{self.name}.{name} has no element {element}")
            offset, count = offset + element * width, None
        elif count:
            width *= count
        if not rest:
            return _slot(offset, width, type_name, count)
        if type_name is None:
            raise UnknownName(f"{self.name}.{name} is not a structure, it has no {rest!r}")
        inner = self._layouts[type_name].slot(rest)
        return _slot(offset + inner.offset, inner.width, inner.type, inner.elements)

    def view(self, buffer: Buffer, byte: int = 0) -> View:
        """View `buffer` from `byte` on as this structure."""
        return View(self, memoryview(buffer)[byte:] if byte else memoryview(buffer))

    def new(self, extra: int = 0) -> View:
        """Make a zeroed buffer of this structure's size and `extra` bytes for its open array, as a view."""
        return View(self, memoryview(bytearray(self.size + extra)))

    def at(self, path: str) -> Layout:
        """Return the layout of the structure in field `path`."""
        type_name = self.slot(path).type
        if type_name is None:
            raise UnknownName(f"{self.name}.{path} is not a structure")
        return self._layouts[type_name]


class View:
    """A structure over bytes. Reading or writing past their end raises ShortBuffer."""

    __slots__ = ("data", "layout")

    def __init__(self, layout: Layout, data: memoryview) -> None:
        self.layout = layout
        self.data = data

    def __getitem__(self, path: str) -> int:
        slot = self.layout.slot(path)
        data = self.data[slot.first : slot.last]
        if len(data) != slot.last - slot.first:
            raise self._short(path)
        return (int.from_bytes(data, "big") >> slot.shift) & slot.mask

    def __setitem__(self, path: str, value: int) -> None:
        slot = self.layout.slot(path)
        length = slot.last - slot.first
        data = self.data[slot.first : slot.last]
        if len(data) != length:
            raise self._short(path)
        if value < 0 or value > slot.mask:
            raise ValueError(f"{self.layout.name}.{path} holds {slot.width} bits, not {value:#x}")
        others = int.from_bytes(data, "big") & ~(slot.mask << slot.shift)
        data[:] = (others | (value << slot.shift)).to_bytes(length, "big")

    def _short(self, path: str) -> ShortBuffer:
        last = self.layout.slot(path).last
        return ShortBuffer(f"{self.layout.name}.{path} ends at byte {last}, the buffer at {len(self.data)}")

    def get(self, path: str, default: int = 0) -> int:
        """Return the field's value, or `default` if this kernel does not have the field."""
        return self[path] if self.layout.has(path) else default

    def update(self, values: Mapping[str, int]) -> None:
        """Set several fields."""
        for path, value in values.items():
            self[path] = value

    def at(self, path: str) -> View:
        """View the structure inside this one, over its bytes and those after it (for its open array)."""
        return View(self.layout.at(path), self.data[self.layout.slot(path).offset >> 3 :])

    def bytes(self, path: str) -> memoryview:
        """View a byte-aligned field, writable if the buffer is; an open array goes to the end."""
        slot = self.layout.slot(path)
        if slot.offset & 7:
            raise ValueError(f"{self.layout.name}.{path} does not begin at a byte")
        if slot.elements == 0:
            return self.data[slot.first :]
        if len(self.data) < slot.last:
            raise self._short(path)
        return self.data[slot.first : slot.last]

    def nonzero(self) -> dict[str, int]:
        """Collect the fields that are not 0, for logs: {dotted name: value}."""
        values: dict[str, int] = {}
        for name, member in self.layout.members.items():
            if name.startswith("reserved") or member.elements is not None:
                continue
            if member.offset + member.width > 8 * len(self.data):
                break
            if member.type is not None and not member.offset & 7:
                values.update({f"{name}.{key}": value for key, value in self.at(name).nonzero().items()})
            elif member.type is None and self[name]:
                values[name] = self[name]
        return values


class Layouts:
    """All structures and named values of one kernel's headers."""

    def __init__(
        self, structures: Mapping[str, tuple[int, Mapping[str, Member]]], values: Mapping[str, int]
    ) -> None:
        self._structures = structures
        self.values = values
        self._layouts: dict[str, Layout] = {}
        self._opcodes: dict[int, str] = {}

    def __getitem__(self, name: str) -> Layout:
        layout = self._layouts.get(name)
        if layout is None:
            if name not in self._structures:
                headline = f"this kernel's mlx5_ifc.h has no structure {name!r}"
                raise UnknownName(headline, hint=nearest(name, self._structures))
            size, members = self._structures[name]
            layout = self._layouts[name] = Layout(
                name, size, {k: Member(*m) for k, m in members.items()}, self
            )
        return layout

    def __contains__(self, name: object) -> bool:
        return name in self._structures

    def __len__(self) -> int:
        return len(self._structures)

    def names(self) -> list[str]:
        """List the names of all structures."""
        return list(self._structures)

    def value(self, name: str) -> int:
        """Look up a value of an enum or of a numeric #define."""
        if name not in self.values:
            raise UnknownName(
                f"this kernel's mlx5_ifc.h has no value {name!r}", hint=nearest(name, self.values)
            )
        return self.values[name]

    def opcodes(self) -> dict[int, str]:
        """List firmware commands: {number: name without `MLX5_CMD_OP_`}."""
        if not self._opcodes:
            prefix = "MLX5_CMD_OP_"
            pairs = ((v, k[len(prefix) :]) for k, v in self.values.items() if k.startswith(prefix))
            ranges = ("MAX", "GENERAL_", "MOD_")  # not commands
            self._opcodes = {number: name for number, name in pairs if not name.startswith(ranges)}
        return self._opcodes


def find(folder: PathLike) -> list[Path]:
    """Find the headers below `folder`: a kernel's `include`, an unpacked headers package, or a tree with one.

    SetupError if there are none.
    """
    root = Path(folder)
    for include in (root, root / "include"):
        if all((include / name).is_file() for name in HEADERS):
            return [include / name for name in HEADERS]
    for path in sorted(root.rglob(f"include/{HEADERS[-1]}")):
        include = path.parents[2]
        if all((include / name).is_file() for name in HEADERS):
            return [include / name for name in HEADERS]
    raise SetupError(
        f"no {HEADERS[-1]} below {root}",
        hint="install the headers package (linux-headers-*-common) of the kernel under test",
    )


def load(folder: PathLike, cache: Optional[PathLike] = None) -> Layouts:
    """Load the layouts of the kernel whose headers are below `folder`; `cache` is a folder for parsed headers.

    SetupError if a header is missing, or has a construct that the reader does not know (with file and line).
    """
    return load_headers(find(folder), cache)


def load_headers(headers: Iterable[PathLike], cache: Optional[PathLike] = None) -> Layouts:
    """Load these headers in this order, as `load` does."""
    texts: list[tuple[str, str]] = []
    for header in headers:
        try:
            texts.append((os.fspath(header), Path(header).read_text(encoding="utf-8")))
        except OSError as problem:
            raise SetupError(
                f"cannot read the kernel header {os.fspath(header)}", [str(problem)]
            ) from problem
    if cache is None:
        return Layouts(*read_headers(texts))
    digest = hashlib.sha256(VERSION.encode())
    for _, text in texts:
        digest.update(text.encode())
    stored = Path(cache) / f"ifc-{digest.hexdigest()[:24]}.json"
    if (known := _stored(stored)) is not None:
        return known
    structures, values = read_headers(texts)
    with contextlib.suppress(OSError):  # the cache only saves time
        _store(stored, [structures, values])
    return Layouts(structures, values)


def _stored(path: Path) -> Optional[Layouts]:
    """Read what an earlier run parsed, None if it is missing or damaged."""
    try:
        structures, values = json.loads(path.read_bytes())
    except (OSError, ValueError, TypeError):
        return None
    return Layouts(structures, values)


def _store(path: Path, content: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=path.name)
    with os.fdopen(handle, "w") as file:
        json.dump(content, file, separators=(",", ":"))
    Path(temporary).replace(path)
