"""Memory keys: access checks and translation; `umr.py` changes them by work request.

A key is {index, variant byte}; its context is `mkc` of mlx5_ifc.h, its translation a list of octowords: MTT
(8 bytes, address with read and write bits), KLM and KSM (16 bytes, length or nothing, key, address).
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import ClassVar, NamedTuple

from harness.connectx.object_table import FwObject, ObjectTable
from harness.wire.ifc import View

OCTOWORD = 16
MTT_READ, MTT_WRITE = 1, 2
PA, MTT, KLM, KSM = 0, 1, 2, 3
"""Access modes. Ref: Linux 7.2 include/linux/mlx5/mlx5_ifc.h, MLX5_MKC_ACCESS_MODE_*."""

LOCAL_KEY = 0x500
NULL_KEY = 0x700
"""Keys that exist without being created. Ref: Linux 7.2 ifc query_special_contexts_out: resd_lkey,
null_mkey."""

REPEAT_BLOCK = 0x400
"""Instead of a key: the list is a repeat block. Ref: rdma-core 56 providers/mlx5/wqe.h."""

ANY_QP = 0xFFFFFF
"""In `mkc.qpn`: the key is bound to no QP. Ref: Linux 7.2 drivers/infiniband/hw/mlx5/mr.c,
set_mkc_access_pd_addr_fields."""

MAX_DEPTH = 4

_FIELDS = """free umr_en a rw rr lw lr access_mode_1_0 access_mode_4_2 qpn mkey_7_0 length64 bsf_en
en_rinval pd
    start_addr len bsf_octword_size translations_octword_size log_page_size relaxed_ordering_write
    relaxed_ordering_read small_fence_on_rdma_read_response sync_umr"""
FIELDS = tuple(_FIELDS.split())
"""Fields of `mkc` that a key keeps; one that the kernel's header lacks is 0."""


class Refused(Exception):
    """An access or a UMR that the key forbids; `syndrome` is the completion's."""

    def __init__(self, syndrome: int, why: str) -> None:
        super().__init__(why)
        self.syndrome = syndrome
        self.why = why


class Absent(NamedTuple):
    """A missing page: the leaf key, the address within it, and the rest of the access from there on."""

    key: Key
    va: int
    length: int
    write: bool


class Span(NamedTuple):
    """Bytes in guest memory; `address` None is the null key: zeros to read, nothing to write."""

    address: int | None
    length: int


class User(NamedTuple):
    """User of a key: PD (None: any), QP, and whether that may use the reserved local key."""

    pd: int | None
    qpn: int
    reserved: bool


@dataclass(eq=False)
class Key(FwObject):
    """A memory key. `always`: entries carry no access bits, every page is present.

    `fields` are the context's fields by the names of mlx5_ifc.h (`FIELDS`); `table` the translation's
    octowords.
    """

    kind: ClassVar[str] = "mkey"
    fields: dict[str, int] = field(default_factory=dict)
    table: bytearray = field(default_factory=bytearray)
    always: bool = False

    @property
    def mode(self) -> int:
        """PA, MTT, KLM or KSM."""
        return self.fields["access_mode_4_2"] << 2 | self.fields["access_mode_1_0"]

    @property
    def value(self) -> int:
        """Key value as WQEs carry it."""
        return self.number << 8 | self.fields["mkey_7_0"]

    def refers(self) -> Iterable[tuple[str, int]]:
        """Name its PD while the key is in use."""
        return () if self.fields["free"] else (("pd", self.fields["pd"]),)


def key_fields(context: View) -> dict[str, int]:
    """Return the fields of an `mkc`, 0 for those that the kernel's header lacks."""
    return {name: context.get(name) for name in FIELDS}


class Keys:
    """All keys of a card: access checks and translation."""

    def __init__(self, objects: ObjectTable) -> None:
        self._objects = objects
        self.created = {"pg_access": 0, "always": 0}
        """Keys created by command, by whether entries carry access bits."""

    def find(self, value: int, user: User, syndrome: int) -> Key:
        """Return the key of that value if `user` may use it; Refused with `syndrome` otherwise."""
        key: Key | None = self._objects.table("mkey").get(value >> 8)
        if key is None:
            raise Refused(syndrome, f"no key {value:#x}")
        if key.fields["free"]:
            raise Refused(syndrome, f"key {value:#x} is free")
        if key.fields["mkey_7_0"] != value & 0xFF:
            raise Refused(syndrome, f"key {value:#x}: the variant is {key.fields['mkey_7_0']:#x}")
        if user.pd is not None and key.fields["pd"] != user.pd:
            raise Refused(syndrome, f"key {value:#x} is of PD {key.fields['pd']}, not {user.pd}")
        if key.fields["qpn"] not in (ANY_QP, user.qpn):
            raise Refused(syndrome, f"key {value:#x} is bound to QP {key.fields['qpn']:#x}")
        return key

    def access(
        self, value: int, va: int, length: int, user: User, need: str, syndrome: int
    ) -> tuple[list[Span], Absent | None]:
        """Return the spans of `length` bytes at `va` of a key, up to the first absent page, and that page.

        `need` is the permission: lr, lw, rr, rw or a. Everything that can be refused is refused before any
        page is looked at. Raises Refused.
        """
        write = need in ("lw", "rw", "a")
        if value == LOCAL_KEY:
            if not user.reserved or need not in ("lr", "lw"):
                raise Refused(syndrome, f"QP {user.qpn:#x} may not use the reserved key for {need}")
            return [Span(va, length)], None
        if value == NULL_KEY:
            return [Span(None, length)], None
        key = self.find(value, user, syndrome)
        if not key.fields[need]:
            raise Refused(syndrome, f"key {value:#x} lacks {need}")
        self._check_range(key, va, length, syndrome)
        spans: list[Span] = []
        absent = self._walk(key, va, length, write, spans, syndrome, 0)
        return spans, absent

    def _check_range(self, key: Key, va: int, length: int, syndrome: int) -> None:
        fields = key.fields
        start = fields["start_addr"]
        end = 1 << 64 if fields["length64"] else start + fields["len"]
        if va < start or va + length > end:
            raise Refused(
                syndrome,
                f"{va:#x}+{length:#x} is outside key {key.value:#x}: {start:#x}+{fields['len']:#x}",
            )

    def _walk(
        self, key: Key, va: int, length: int, write: bool, spans: list[Span], syndrome: int, depth: int
    ) -> Absent | None:
        """Append the spans of a range; the first absent page ends it."""
        if depth > MAX_DEPTH:
            raise Refused(syndrome, "keys refer to keys without end")
        mode = key.mode
        if mode == MTT:
            return self._walk_mtt(key, va, length, write, spans)
        if mode == PA:
            spans.append(Span(va, length))
            return None
        if mode in (KLM, KSM):
            return self._walk_keys(key, va, length, write, spans, syndrome, depth)
        raise Refused(syndrome, f"key {key.value:#x} has access mode {mode}")

    def _walk_mtt(self, key: Key, va: int, length: int, write: bool, spans: list[Span]) -> Absent | None:
        fields, table = key.fields, key.table
        shift = fields["log_page_size"]
        page = 1 << shift
        at = (fields["start_addr"] & (page - 1)) + va - fields["start_addr"]
        need = MTT_WRITE if write else MTT_READ
        while length:
            index, inside = at >> shift, at & (page - 1)
            entry = int.from_bytes(table[8 * index : 8 * index + 8], "big")
            if not entry & need:
                return Absent(key, va, length, write)
            size = min(length, page - inside)
            _append(spans, (entry & ~0xFFF & ~(page - 1)) + inside, size)
            at, va, length = at + size, va + size, length - size
        return None

    def _walk_keys(
        self, key: Key, va: int, length: int, write: bool, spans: list[Span], syndrome: int, depth: int
    ) -> Absent | None:
        for entry_key, entry_va, room in _entries(key, va, syndrome):
            size = min(length, room)
            inner: Key | None = self._objects.table("mkey").get(entry_key >> 8)
            if entry_key == NULL_KEY:
                return Absent(key, va, length, write)
            if entry_key == LOCAL_KEY:
                _append(spans, entry_va, size)
            elif inner is None or inner.fields["free"] or inner.fields["mkey_7_0"] != entry_key & 0xFF:
                raise Refused(syndrome, f"key {key.value:#x} refers to {entry_key:#x}, which is not usable")
            elif inner.fields["pd"] != key.fields["pd"]:
                raise Refused(
                    syndrome, f"key {key.value:#x} refers to {entry_key:#x}, which is of another PD"
                )
            else:
                self._check_range(inner, entry_va, size, syndrome)
                absent = self._walk(inner, entry_va, size, write, spans, syndrome, depth + 1)
                if absent is not None:
                    return absent
            va, length = va + size, length - size
            if not length:
                return None
        raise Refused(syndrome, f"key {key.value:#x} has no entry for {va:#x}")

    def invalidate(self, value: int, pd: int | None) -> None:
        """Free the key for a send with invalidate, if it allows that and `value` is its current one."""
        key: Key | None = self._objects.table("mkey").get(value >> 8)
        if (
            key is not None
            and key.value == value
            and key.fields["en_rinval"]
            and pd in (None, key.fields["pd"])
        ):
            key.fields["free"] = 1


def _append(spans: list[Span], address: int, length: int) -> None:
    """Append a span, joined to the last one where it continues that."""
    if spans:
        last = spans[-1]
        if last.address is not None and last.address + last.length == address:
            spans[-1] = Span(last.address, last.length + length)
            return
    spans.append(Span(address, length))


def _entries(key: Key, va: int, syndrome: int) -> Iterable[tuple[int, int, int]]:
    """Yield (inner key, address in it, bytes until the next entry) of a KLM or KSM key, from `va` on."""
    fields, table = key.fields, key.table
    count = len(table) // OCTOWORD
    if key.mode == KSM:
        shift = fields["log_page_size"]
        size = 1 << shift
        at = (fields["start_addr"] & (size - 1)) + va - fields["start_addr"]
        inside = at & (size - 1)
        for index in range(at >> shift, count):
            _, entry_key, entry_va = struct.unpack_from(">IIQ", table, OCTOWORD * index)
            yield entry_key, entry_va + inside, size - inside
            inside = 0
        return
    skip = va - fields["start_addr"]
    for length, entry_key, entry_va in _pieces(table, count):
        if skip >= length:
            skip -= length
            continue
        yield entry_key, entry_va + skip, length - skip
        skip = 0


def _pieces(table: bytearray, count: int) -> Iterator[tuple[int, int, int]]:
    """Yield the entries of a KLM list as (length, key, address), a repeat block expanded.

    Ref: rdma-core 56 providers/mlx5/wqe.h, mlx5_wqe_umr_repeat_block_seg and mlx5_wqe_umr_repeat_ent_seg.
    """
    if count and struct.unpack_from(">I", table, 4)[0] == REPEAT_BLOCK:
        rounds, entries = struct.unpack_from(">I2xH", table, 8)
        for number in range(rounds):
            for index in range(1, min(entries, count - 1) + 1):
                stride, length, entry_key, entry_va = struct.unpack_from(">HHIQ", table, OCTOWORD * index)
                yield length, entry_key, entry_va + number * stride
        return
    for index in range(count):
        yield struct.unpack_from(">IIQ", table, OCTOWORD * index)
