"""Structures whose offsets are written out, for what `mlx5_ifc.h` does not hold. Everything is big endian.

class PageRequest(Struct, size=64):
    '''Asks the driver for pages. Ref: Linux 7.2 include/linux/mlx5/device.h, struct mlx5_eqe_page_req.'''
    func_id = Field(byte=0x22, bits=16)

event = PageRequest.new(func_id=1)      # over new bytes
PageRequest(buffer, at=64).func_id      # over existing bytes
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, ClassVar, Optional, TypeVar, Union, overload

Buffer = Union[bytes, bytearray, memoryview]
Self = TypeVar("Self", bound="Struct")


class Field:
    """`bits` bits of the word that begins at `byte`, `shift` bits above its least significant end.

    The word is as long as `shift + bits` need, rounded up to bytes: the owner nibble of byte 63 is
    `Field(byte=63, bits=1)`, the opcode above it `Field(byte=63, bits=4, shift=4)`.
    """

    def __init__(self, byte: int, bits: int, shift: int = 0) -> None:
        self.byte, self.bits, self.shift = byte, bits, shift
        self.length = (shift + bits + 7) // 8
        self.place = slice(byte, byte + self.length)
        self.mask = (1 << bits) - 1
        self.name = ""

    def __set_name__(self, owner: type, name: str) -> None:
        self.name = name

    @overload
    def __get__(self, instance: None, owner: type) -> Field: ...

    @overload
    def __get__(self, instance: Struct, owner: type) -> int: ...

    def __get__(self, instance: Optional[Struct], owner: type) -> Union[Field, int]:
        if instance is None:
            return self
        return (int.from_bytes(instance.data[self.place], "big") >> self.shift) & self.mask

    def __set__(self, instance: Struct, value: int) -> None:
        self.check(value, type(instance))
        others = int.from_bytes(instance.data[self.place], "big") & ~(self.mask << self.shift)
        instance.data[self.place] = (others | (value << self.shift)).to_bytes(self.length, "big")

    def check(self, value: int, owner: type) -> None:
        """Raise ValueError if the field cannot hold the value."""
        if value < 0 or value > self.mask:
            raise ValueError(f"{owner.__name__}.{self.name} holds {self.bits} bits, not {value:#x}")


class Struct:
    """Fields over `size` bytes of a buffer, beginning at `at`. A buffer too short raises ValueError."""

    size: ClassVar[int] = 0
    fields: ClassVar[dict[str, Field]] = {}

    __slots__ = ("data",)

    def __init_subclass__(cls, size: int = 0, **rest: Any) -> None:
        super().__init_subclass__(**rest)
        cls.size = size or cls.size
        cls.fields = {**cls.fields, **{k: v for k, v in vars(cls).items() if isinstance(v, Field)}}
        for name, field in cls.fields.items():
            if field.byte + field.length > cls.size:
                raise TypeError(f"{cls.__name__}.{name} ends past the structure's {cls.size} bytes")

    def __init__(self, buffer: Buffer, at: int = 0) -> None:
        self.data = memoryview(buffer)[at : at + self.size]
        if len(self.data) != self.size:
            raise ValueError(f"{type(self).__name__} needs {self.size} bytes, has {len(self.data)}")

    @classmethod
    def new(cls: type[Self], **values: int) -> Self:
        """Make a zeroed structure with these fields set (of overlapping fields, only one)."""
        whole = 0
        for name, value in values.items():
            field = cls.fields.get(name)
            if field is None:
                raise AttributeError(f"{cls.__name__} has no field {name!r}")
            field.check(value, cls)
            whole |= value << 8 * (cls.size - field.byte - field.length) + field.shift
        return cls(bytearray(whole.to_bytes(cls.size, "big")))

    def __bytes__(self) -> bytes:
        return bytes(self.data)

    def __iter__(self) -> Iterator[tuple[str, int]]:
        return ((name, getattr(self, name)) for name in self.fields)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(f'{name}={value:#x}' for name, value in self if value)})"
