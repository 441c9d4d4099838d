"""What the driver did that the programming interface forbids.

The card keeps every object with what it refers to. Using one that is gone, destroying one in use, leaving
some at teardown: each is a finding, a value that travels to the results. The command fails as on a real
card as well.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Container, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, ClassVar, TypeVar

from harness.connectx.commands.registry import (
    FirmwareError,
    Status,
)


@dataclass(frozen=True)
class Finding:
    """`kind` is one of the words in KINDS, `subject` the object ("cq 5"), `detail` a sentence for people."""

    kind: str
    subject: str
    detail: str

    def to_json(self) -> dict[str, str]:
        """As it travels."""
        return {"kind": self.kind, "subject": self.subject, "detail": self.detail}


MAX_FINDINGS = 10_000
MAX_REPEATS = 16
"""Findings in all, and of one: what is looked at every few milliseconds is found wrong each time."""

KINDS = {
    "use-after-destroy": "a command, doorbell or WQE names an object that was destroyed",
    "no-such-object": "... that never was",
    "destroy-in-use": "an object is destroyed while others refer to it",
    "bad-qp-transition": "a QP is moved between states that have no such edge",
    "free-key-in-use": "a key is freed, or changed, against the state that its UMR checks",
    "pages-lost": "pages are given twice, or not taken back when the HCA is disabled",
    "left-at-teardown": "objects are there when the HCA is torn down",
    "bad-address": "an address outside the guest's memory",
    "bad-value": "a field, size or doorbell that makes no sense",
    "bad-resume": "a page fault is resumed that is not open, or as another type",
    "fault-loop": "a page fault is resumed again and again without the page",
    "model-error": "not the driver: a defect of the card itself; the log has the trace",
    "queue-overrun": "an event or completion queue has no room",
}


@dataclass(eq=False)
class FwObject:
    """An object of the card: `kind` names its table, `refers` the objects it needs, as (kind, number)."""

    kind: ClassVar[str] = ""
    number: int

    def refers(self) -> Iterable[tuple[str, int]]:
        """What must outlive this object."""
        return ()


class Numbers:
    """Numbers handed out in a circle, so that a number that was freed does not come back at once."""

    def __init__(self, first: int, limit: int) -> None:
        self._first, self._limit, self._next = first, limit, first

    def take(self, used: Container[int]) -> int:
        """A number not in `used`; FirmwareError when there is none."""
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
"""First and last number + 1 by kind; what is not here goes to 2^16. EQ numbers have 8 bits in doorbells."""

REFERRERS = {
    "eq": ("cq",),
    "cq": ("qp", "srq"),
    "pd": ("mkey", "qp", "srq"),
    "xrcd": ("qp", "srq"),
    "srq": ("qp",),
    "q_counter": ("qp",),
}
"""Which kinds may refer to a kind: where to look for users.

A UAR page is not among them: it is only where doorbells come, and mlx5_ib frees a context's pages before
its queues (seen with 7.3 and pyverbs), which real firmware accepts.
"""

T = TypeVar("T", bound=FwObject)


class Judge:
    """All objects, by kind and number, and all findings."""

    def __init__(self, report: Callable[[Finding], None]) -> None:
        self._report = report
        self.findings: list[Finding] = []
        self._times: Counter[Finding] = Counter()
        self._tables: dict[str, dict[int, Any]] = {}
        self._numbers: dict[str, Numbers] = {}
        self._gone: dict[str, dict[int, None]] = {}

    def find(self, kind: str, subject: str, detail: str) -> None:
        """Record a finding, unless it was often enough, or there are too many."""
        finding = Finding(kind, subject, detail)
        if len(self.findings) >= MAX_FINDINGS:
            return
        self._times[finding] += 1
        if self._times[finding] <= MAX_REPEATS:
            self.findings.append(finding)
            self._report(finding)

    def table(self, kind: str) -> dict[int, Any]:
        """The objects of that kind, by number."""
        return self._tables.setdefault(kind, {})

    def number(self, kind: str) -> int:
        """A free number for a new object."""
        if kind not in self._numbers:
            self._numbers[kind] = Numbers(*LIMITS.get(kind, (1, 1 << 16)))
        return self._numbers[kind].take(self.table(kind))

    def add(self, thing: T) -> T:
        """Keep an object after checking that what it refers to exists."""
        for kind, number in thing.refers():
            self.get(kind, number, f"{thing.kind} to be created")
        self.table(thing.kind)[thing.number] = thing
        self._gone.get(thing.kind, {}).pop(thing.number, None)
        return thing

    def get(self, kind: str, number: int, user: str = "command") -> Any:
        """The object; a finding and FirmwareError(BAD_RES) when there is none."""
        thing = self.table(kind).get(number)
        if thing is None:
            self.missing(kind, number, user)
            raise FirmwareError(Status.BAD_RES, why=f"no {kind} {number:#x}")
        return thing

    def missing(self, kind: str, number: int, user: str) -> None:
        """Record the use of an object that is not there."""
        gone = number in self._gone.get(kind, ())
        self.find("use-after-destroy" if gone else "no-such-object", f"{kind} {number:#x}", f"used by {user}")

    def users(self, kind: str, number: int) -> Iterator[FwObject]:
        """The objects that refer to this one."""
        wanted = (kind, number)
        for name in REFERRERS.get(kind, ()):
            for thing in self.table(name).values():
                if wanted in thing.refers():
                    yield thing

    def remove(self, kind: str, number: int) -> Any:
        """Forget an object. While others use it: a finding and FirmwareError(RES_BUSY), and it stays."""
        thing = self.get(kind, number, "its own destruction")
        user = next(self.users(kind, number), None)
        if user is not None:
            name = f"{kind} {number:#x}"
            self.find("destroy-in-use", name, f"{user.kind} {user.number:#x} still refers to it")
            raise FirmwareError(Status.RES_BUSY, why=f"{name} is in use")
        del self._tables[kind][number]
        gone = self._gone.setdefault(kind, {})
        gone[number] = None
        if len(gone) > 4096:
            del gone[next(iter(gone))]
        return thing

    def teardown(self) -> None:
        """The HCA is torn down: what is left is a finding, and gone."""
        for kind, table in self._tables.items():
            if table:
                numbers = ", ".join(f"{number:#x}" for number in list(table)[:8])
                self.find("left-at-teardown", f"{len(table)} {kind}", f"numbers {numbers}")
        self.forget()

    def census(self) -> dict[str, int]:
        """How many objects there are, by kind."""
        return {kind: len(table) for kind, table in self._tables.items() if table}

    def forget(self) -> None:
        """Drop all objects without a word: a reset."""
        self._tables.clear()
        self._gone.clear()


@dataclass(eq=False)
class PlainObject(FwObject):
    """An object without behaviour: a PD, an XRC domain, a counter set. `table` is its kind."""

    table: str = ""
    needs: tuple[tuple[str, int], ...] = field(default=())

    @property
    def kind(self) -> str:  # type: ignore[override]
        """The table it lives in."""
        return self.table

    def refers(self) -> Iterable[tuple[str, int]]:
        """What must outlive this object."""
        return self.needs
