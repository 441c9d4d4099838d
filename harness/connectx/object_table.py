"""Object table: firmware objects by kind and number, with what each one refers to.

Use of an object that does not exist, destruction of one in use, objects left at teardown: each is a finding, and
the command fails as on a real card.
"""

from __future__ import annotations

from collections.abc import Container, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, ClassVar, TypeVar

from harness.connectx.findings import Findings
from harness.connectx.status import FirmwareError, Status


@dataclass(eq=False)
class FwObject:
    """A firmware object: `kind` names its table, `refers` the objects it needs, as (kind, number)."""

    kind: ClassVar[str] = ""
    number: int

    def refers(self) -> Iterable[tuple[str, int]]:
        """Yield what must outlive this object, as (kind, number)."""
        return ()


class Numbers:
    """Numbers allocated cyclically, so that a freed number is not reused at once."""

    def __init__(self, first: int, limit: int) -> None:
        self._first, self._limit, self._next = first, limit, first

    def take(self, used: Container[int]) -> int:
        """Return a number not in `used`; FirmwareError when there is none."""
        for _ in range(self._limit - self._first):
            number = self._next
            self._next = number + 1 if number + 1 < self._limit else self._first
            if number not in used:
                return number
        raise FirmwareError(Status.NO_RESOURCES, why="no number is free")


LIMITS = {
    "uar": (16, 1 << 13),
    "eq": (1, 1 << 8),
    "cq": (1, 1 << 16),
    "qp": (0x40, 1 << 17),
    "srq": (1, 1 << 16),
    "mkey": (0x10, 1 << 22),
}
"""First and last number + 1 by kind; other kinds go up to 2^16. EQ numbers have 8 bits in doorbells."""

REFERRERS = {
    "eq": ("cq",),
    "cq": ("qp", "srq"),
    "pd": ("mkey", "qp", "srq"),
    "xrcd": ("qp", "srq"),
    "srq": ("qp",),
    "q_counter": ("qp",),
}
"""Kinds that may refer to a kind: where to look for users.

A UAR page is not among them: it only takes doorbells, and mlx5_ib frees a context's pages before its queues
(seen with 7.3 and pyverbs), which real firmware accepts.
"""

MAX_DESTROYED = 4096
"""Numbers by kind that are remembered as destroyed."""

T = TypeVar("T", bound=FwObject)


class ObjectTable:
    """All objects of a card."""

    def __init__(self, findings: Findings) -> None:
        self._findings = findings
        self._tables: dict[str, dict[int, Any]] = {}
        self._numbers: dict[str, Numbers] = {}
        self._destroyed: dict[str, dict[int, None]] = {}

    def table(self, kind: str) -> dict[int, Any]:
        """Return the objects of a kind, by number."""
        return self._tables.setdefault(kind, {})

    def number(self, kind: str) -> int:
        """Return a free number for a new object."""
        if kind not in self._numbers:
            self._numbers[kind] = Numbers(*LIMITS.get(kind, (1, 1 << 16)))
        return self._numbers[kind].take(self.table(kind))

    def add(self, new: T) -> T:
        """Add an object after checking that all it refers to exists."""
        for kind, number in new.refers():
            self.get(kind, number, f"{new.kind} to be created")
        self.table(new.kind)[new.number] = new
        self._destroyed.get(new.kind, {}).pop(new.number, None)
        return new

    def get(self, kind: str, number: int, user: str = "command") -> Any:
        """Return the object; a finding and FirmwareError(BAD_RES) when there is none."""
        entry = self.table(kind).get(number)
        if entry is None:
            self.missing(kind, number, user)
            raise FirmwareError(Status.BAD_RES, why=f"no {kind} {number:#x}")
        return entry

    def missing(self, kind: str, number: int, user: str) -> None:
        """Report the use of an object that does not exist."""
        finding = "use-after-destroy" if number in self._destroyed.get(kind, ()) else "no-such-object"
        self._findings.report(finding, f"{kind} {number:#x}", f"used by {user}")

    def users(self, kind: str, number: int) -> Iterator[FwObject]:
        """Yield the objects that refer to this one."""
        reference = (kind, number)
        for name in REFERRERS.get(kind, ()):
            for entry in self.table(name).values():
                if reference in entry.refers():
                    yield entry

    def remove(self, kind: str, number: int) -> Any:
        """Remove an object. While others use it: a finding and FirmwareError(RES_BUSY), and it stays."""
        entry = self.get(kind, number, "its own destruction")
        user = next(self.users(kind, number), None)
        if user is not None:
            name = f"{kind} {number:#x}"
            self._findings.report("destroy-in-use", name, f"{user.kind} {user.number:#x} still refers to it")
            raise FirmwareError(Status.RES_BUSY, why=f"{name} is in use")
        del self._tables[kind][number]
        destroyed = self._destroyed.setdefault(kind, {})
        destroyed[number] = None
        if len(destroyed) > MAX_DESTROYED:
            del destroyed[next(iter(destroyed))]
        return entry

    def teardown(self) -> None:
        """Report the objects that are left when the HCA is torn down, and drop them."""
        for kind, table in self._tables.items():
            if table:
                numbers = ", ".join(f"{number:#x}" for number in list(table)[:8])
                self._findings.report("left-at-teardown", f"{len(table)} {kind}", f"numbers {numbers}")
        self.clear()

    def census(self) -> dict[str, int]:
        """Return the number of objects, by kind."""
        return {kind: len(table) for kind, table in self._tables.items() if table}

    def clear(self) -> None:
        """Drop all objects without a finding: a reset."""
        self._tables.clear()
        self._destroyed.clear()


@dataclass(eq=False)
class PlainObject(FwObject):
    """An object without behaviour: a PD, an XRC domain, a counter set. `table` is its kind."""

    table: str = ""
    needs: tuple[tuple[str, int], ...] = field(default=())

    @property
    def kind(self) -> str:  # type: ignore[override]
        """Name the table it is in."""
        return self.table

    def refers(self) -> Iterable[tuple[str, int]]:
        """Yield what must outlive this object, as (kind, number)."""
        return self.needs
