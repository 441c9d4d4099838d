"""Applies rules: decides which of the things that happen a rule acts on, and does it.

A kind is a method marked with `does`; the modules that a rule looks into ask here: `telling` before an event of
a page fault goes out, `resuming` before a resume takes effect, `access` where bytes are looked up, `umr` and
`command` before one is done, `gone` after an object's end. Kinds that invent events are in `forged.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from harness.connectx.commands.registry import (
    FirmwareError,
    Status,
)
from harness.connectx.faults.bogus_events import FORGERS
from harness.connectx.faults.fault_events import REQUESTER
from harness.connectx.objects.mkeys import (
    LOCAL_KEY,
    NULL_KEY,
    Absent,
    Refused,
    Span,
)
from harness.connectx.rules.armed_rule import (
    Armed,
    CommandOverride,
    Delay,
)
from harness.errors import UsageError
from harness.values import codec
from harness.values.rule import KINDS, SINCE, Rule
from harness.wire import cqe, wqe

if TYPE_CHECKING:
    from harness.connectx.datapath.wqe_parser import (
        Operation,
        Segment,
    )
    from harness.connectx.faults.fault_events import (
        Fault,
        PendingEvent,
    )
    from harness.connectx.hca import Hca
    from harness.connectx.objects.mkeys import Key
    from harness.connectx.objects.qps import QueuePair

PAGE_SHIFT = 12
START, USER, CONNECTED = SINCE.index("start"), SINCE.index("user"), SINCE.index("connected")


Deeds = dict[str, Callable[..., Any]]
_DEEDS: Deeds = {}


def does(kind: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Mark a method as what rules of that kind do. It gets the armed rule and what the rule looks at."""

    def mark(method: Callable[..., Any]) -> Callable[..., Any]:
        _DEEDS[kind] = method
        return method

    return mark


class Rules:
    """The rules of one card."""

    def __init__(self, hca: Hca) -> None:
        self._hca = hca
        self._on: dict[str, list[Armed]] = {}
        self._all: list[Armed] = []
        self._phase = START
        self._waiting: dict[int, tuple[int, float]] = {}

    def arm(self, rules: Sequence[Any]) -> None:
        """Replace the rules. UsageError for one that makes no sense."""
        try:
            parsed = [
                rule if isinstance(rule, Rule) else codec.from_plain(Rule, rule, "rule") for rule in rules
            ]
        except codec.DecodeError as problem:
            raise UsageError(str(problem)) from problem
        unknown = [rule.kind for rule in parsed if rule.kind not in KINDS]
        if unknown:
            raise UsageError(f"no rule {unknown[0]!r}", hint="one of " + ", ".join(KINDS))
        self._all = [Armed(rule) for rule in parsed]
        self._on = {}
        for armed in self._all:
            self._on.setdefault(KINDS[armed.rule.kind].on, []).append(armed)

    def outcomes(self) -> list[dict[str, Any]]:
        """What each rule did so far, in the order they were armed."""
        return [codec.to_plain(armed.outcome()) for armed in self._all]

    def _acting(self, on: str, phase: int = CONNECTED, **facts: str) -> Iterator[Armed]:
        """The rules that act on a thing with these facts, an empty selector matching all."""
        for armed in self._on.get(on, ()):
            rule = armed.rule
            if phase < SINCE.index(rule.since):
                continue
            if all(getattr(rule, name) in ("", value) for name, value in facts.items()) and armed.takes():
                yield armed

    # -- events and resumes

    def telling(self, telling: PendingEvent) -> None:
        """An event is about to go out: hold it back, change it, send others with it."""
        for armed in self._acting("event", side=telling.fault.side):
            forger = FORGERS.get(armed.rule.kind)
            note = (
                forger(self._hca, armed, telling) if forger else _DEEDS[armed.rule.kind](self, armed, telling)
            )
            if note:
                armed.acted(note)

    @does("delay-event")
    def _delay_event(self, armed: Armed, telling: PendingEvent) -> str:
        telling.delay_s += armed.rule.delay_ms / 1000
        return f"{telling.fault}: {armed.rule.delay_ms} ms late"

    @does("drop-event")
    def _drop_event(self, armed: Armed, telling: PendingEvent) -> str:
        telling.withheld = True
        return f"{telling.fault}: never told"

    @does("reorder-event")
    def _reorder_event(self, armed: Armed, telling: PendingEvent) -> str:
        telling.delay_s += armed.rule.delay_ms / 1000
        telling.passed_by = True
        return f"{telling.fault}: waits until another has passed it"

    def resuming(self, fault: Fault, error: bool) -> bool:
        """A resume came; whether it takes effect now. FirmwareError when the rule refuses it."""
        for armed in self._acting("resume", side=fault.side):
            _DEEDS[armed.rule.kind](self, armed, fault, error)
            return False
        for armed in self._on.get("access", ()):
            place = (fault.operation.qp.number, fault.side)
            held = armed.holds.get(place)
            if held is not None and held[0] is fault.operation:
                armed.holds[place] = (fault.operation, False)
        return True

    @does("lose-resume")
    def _lose_resume(self, armed: Armed, fault: Fault, error: bool) -> None:
        self._hca.faults.resumes_lost += 1
        armed.acted(f"{fault}: its resume is forgotten")

    @does("fail-resume")
    def _fail_resume(self, armed: Armed, fault: Fault, error: bool) -> None:
        self._hca.faults.resumes_refused += 1
        armed.acted(f"{fault}: its resume is refused with status {armed.rule.status:#x}")
        raise _refusal(armed.rule)

    @does("late-resume")
    def _late_resume(self, armed: Armed, fault: Fault, error: bool) -> None:
        fault.resumed = True
        self._hca.timers.after(
            armed.rule.delay_ms / 1000, ("resume", fault), lambda: self._hca.faults.finish(fault, error)
        )
        armed.acted(f"{fault}: goes on {armed.rule.delay_ms} ms after its resume")

    # -- accesses

    @property
    def on_access(self) -> bool:
        """Whether a rule wants to see where bytes are looked up."""
        return "access" in self._on

    def access(
        self,
        operation: Operation,
        side: str,
        segment: Segment,
        write: bool,
        found: tuple[list[Span], Absent | None],
    ) -> tuple[list[Span], Absent | None]:
        """What a translation gave, up to the first page that a rule makes absent.

        A rule holds an operation once, until its next resume; `local` is the requester's side.
        """
        key: Key | None = self._hca.judge.table("mkey").get(segment.lkey >> 8)
        if key is None or segment.lkey in (LOCAL_KEY, NULL_KEY):
            return found
        region = "local" if side == REQUESTER else "remote"
        first = key.fields["start_addr"] >> PAGE_SHIFT
        for armed in self._on["access"]:
            rule = armed.rule
            begin, end = first + rule.page << PAGE_SHIFT, first + rule.page + rule.pages << PAGE_SHIFT
            reached = sum(span.length for span in found[0])
            if rule.region not in ("", region) or segment.va + reached <= begin or segment.va >= end:
                continue
            if self._holds(armed, operation, side, f"page {rule.page} of key {key.value:#x}, {region}"):
                keep = max(begin - segment.va, 0)
                absent = Absent(key, segment.va + keep, segment.length - keep, write)
                found = _first_bytes(found[0], keep), absent
        return found

    @staticmethod
    def _holds(armed: Armed, operation: Operation, side: str, what: str) -> bool:
        place = (operation.qp.number, side)
        before = armed.holds.get(place)
        if before is not None and before[0] is operation:
            return before[1]
        taken = armed.takes()
        armed.holds[place] = (operation, taken)
        if taken:
            armed.acted(f"{what}: absent until resumed")
        return taken

    # -- UMRs, commands, ends of objects

    def umr(self, qp: QueuePair, key: Key | None, control: wqe.UmrControl, listed: bytes) -> None:
        """A UMR is about to be done. Raises Refused for one to fail, Held for one to wait."""
        if "umr" not in self._on:
            return
        index, due_s = self._waiting.get(qp.number, (-1, 0.0))
        if index == qp.sent:
            if self._hca.clock() < due_s:
                raise Delay(due_s - self._hca.clock())
            del self._waiting[qp.number]
            return
        what = _umr_of(control, listed)
        for armed in self._acting("umr", umr=what, phase=self._phase):
            number = key.value if key is not None else 0
            _DEEDS[armed.rule.kind](self, armed, qp, f"UMR ({what}) of key {number:#x}")

    @does("delay-umr")
    def _delay_umr(self, armed: Armed, qp: QueuePair, what: str) -> None:
        delay_s = armed.rule.delay_ms / 1000
        self._waiting[qp.number] = (qp.sent, self._hca.clock() + delay_s)
        armed.acted(f"{what}: {armed.rule.delay_ms} ms late")
        raise Delay(delay_s)

    @does("fail-umr")
    def _fail_umr(self, armed: Armed, qp: QueuePair, what: str) -> None:
        syndrome = armed.rule.syndrome or cqe.LOCAL_QP_OPERATION
        armed.acted(f"{what}: not done, syndrome {syndrome:#x}")
        qp.flush_due_s = self._hca.clock() + armed.rule.delay_ms / 1000
        raise Refused(syndrome, "a rule")

    def command(self, name: str, request: bytes | bytearray) -> CommandOverride | None:
        """A command came; what a rule does with it, None to run it."""
        if not self._all:
            return None
        self._advance(name, request)
        for armed in self._acting("command", opcode=name, phase=self._phase):
            deed: CommandOverride = _DEEDS[armed.rule.kind](self, armed, name)
            return deed
        return None

    def _advance(self, name: str, request: bytes | bytearray) -> None:
        """A user's first CQ, then a user's first QP that is ready: commands carry the user context's uid."""
        by_user = len(request) >= 4 and request[2:4] != b"\0\0"
        if self._phase == START and name == "CREATE_CQ" and by_user:
            self._phase = USER
        elif self._phase == USER and name == "RTR2RTS_QP":
            self._phase = CONNECTED

    @does("delay-command")
    def _delay_command(self, armed: Armed, name: str) -> CommandOverride:
        armed.acted(f"{name}: {armed.rule.delay_ms} ms late")
        return CommandOverride(delay_s=armed.rule.delay_ms / 1000)

    @does("fail-command")
    def _fail_command(self, armed: Armed, name: str) -> CommandOverride:
        armed.acted(f"{name}: status {armed.rule.status:#x}, syndrome {armed.rule.syndrome:#x}")
        return CommandOverride(refused=_refusal(armed.rule))

    @does("lose-command")
    def _lose_command(self, armed: Armed, name: str) -> CommandOverride:
        armed.acted(f"{name}: never answered")
        return CommandOverride(lost=True)

    def second_queue(self) -> None:
        """Another event queue for page faults is about to be made. FirmwareError when the rule refuses it."""
        for armed in self._acting("queue"):
            _DEEDS[armed.rule.kind](self, armed)

    @does("refuse-second-queue")
    def _refuse_second_queue(self, armed: Armed) -> None:
        armed.acted(f"a second queue for page faults is refused with status {armed.rule.status:#x}")
        raise _refusal(armed.rule)

    @does("first-queue-wins")
    def _first_queue_wins(self, armed: Armed) -> None:
        armed.acted("page faults go to the first of two queues")
        self._hca.events.first_wins = True

    def gone(self, kind: str, number: int) -> None:
        """A QP (by number) or a key (by value) has just ended."""
        for armed in self._acting("gone", object=kind, phase=self._phase):
            armed.acted(FORGERS[armed.rule.kind](self._hca, armed, kind, number))


def _refusal(rule: Rule) -> FirmwareError:
    status = Status(rule.status) if rule.status in Status._value2member_map_ else Status.INTERNAL
    return FirmwareError(status, rule.syndrome, "a rule")


def _first_bytes(spans: list[Span], count: int) -> list[Span]:
    """The beginning of a list of spans."""
    kept = []
    for span in spans:
        if count <= 0:
            break
        kept.append(Span(span.address, min(span.length, count)))
        count -= span.length
    return kept


def _umr_of(control: wqe.UmrControl, listed: bytes) -> str:
    """`map` gives pages, `zap` takes them, `context` changes the key itself."""
    if not listed or control.mkey_mask:
        return "context"
    return "map" if any(listed) else "zap"
