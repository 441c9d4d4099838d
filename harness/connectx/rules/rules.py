"""Injection rules: decide which events, resumes, accesses, UMRs and commands a rule acts on, and how.

Rules decide; the caller does it and counts it. Each kind but those of events is a method marked with `decides` that
returns an override. Kinds that act on events are in `bogus_events.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from harness.connectx.device import DeviceState
from harness.connectx.objects.mkeys import LOCAL_KEY, NULL_KEY, Absent, Key, Span
from harness.connectx.objects.operation import REQUESTER, Fault, Operation, Segment
from harness.connectx.objects.qps import QueuePair
from harness.connectx.rules.armed_rule import ArmedRule
from harness.connectx.rules.overrides import CommandOverride, QueueOverride, ResumeOverride, UmrOverride
from harness.connectx.status import FirmwareError, Status
from harness.errors import UsageError
from harness.values import codec
from harness.values.rule import KINDS, SINCE, Rule
from harness.wire import cqe, wqe

PAGE_SHIFT = 12
START, USER, CONNECTED = SINCE.index("start"), SINCE.index("user"), SINCE.index("connected")

DECISIONS: dict[str, Callable[..., Any]] = {}


def decides(kind: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Mark a method as the decision of rules of that kind. It takes the armed rule and its object."""

    def mark(method: Callable[..., Any]) -> Callable[..., Any]:
        DECISIONS[kind] = method
        return method

    return mark


class InjectionRules:
    """Rules of one card."""

    def __init__(self, device: DeviceState) -> None:
        self._device = device
        self._on: dict[str, list[ArmedRule]] = {}
        self._all: list[ArmedRule] = []
        self._phase = START
        self._delayed_umrs: dict[int, tuple[int, float]] = {}

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
        self._all = [ArmedRule(rule) for rule in parsed]
        self._on = {}
        for armed in self._all:
            self._on.setdefault(KINDS[armed.rule.kind].on, []).append(armed)

    def outcomes(self) -> list[dict[str, Any]]:
        """Return the outcome of each rule so far, in the order they were armed."""
        return [codec.to_plain(armed.outcome()) for armed in self._all]

    def _acting(self, on: str, phase: int = CONNECTED, **facts: str) -> Iterator[ArmedRule]:
        """Yield the rules that act here: their selectors are empty or equal to `facts`."""
        for armed in self._on.get(on, ()):
            rule = armed.rule
            if phase < SINCE.index(rule.since):
                continue
            if all(getattr(rule, name) in ("", value) for name, value in facts.items()) and armed.takes():
                yield armed

    # -- events and resumes

    def event(self, side: str) -> Iterator[ArmedRule]:
        """Yield the rules that act on a page-fault event which is about to be sent."""
        return self._acting("event", side=side)

    def gone(self, kind: str) -> Iterator[ArmedRule]:
        """Yield the rules that act on the end of a QP or a key."""
        return self._acting("gone", object=kind, phase=self._phase)

    def resume(self, fault: Fault) -> ResumeOverride | None:
        """Decide on the resume of an open fault; None: it takes effect now, and pages held for it are present."""
        for armed in self._acting("resume", side=fault.side):
            override: ResumeOverride = DECISIONS[armed.rule.kind](self, armed, fault)
            return override
        for armed in self._on.get("access", ()):
            end = (fault.operation.qp.number, fault.side)
            held = armed.holds.get(end)
            if held is not None and held[0] is fault.operation:
                armed.holds[end] = (fault.operation, False)
        return None

    @decides("lose-resume")
    def _lose_resume(self, armed: ArmedRule, fault: Fault) -> ResumeOverride:
        armed.acted(f"{fault}: its resume is ignored")
        return ResumeOverride(lost=True)

    @decides("fail-resume")
    def _fail_resume(self, armed: ArmedRule, fault: Fault) -> ResumeOverride:
        armed.acted(f"{fault}: its resume is refused with status {armed.rule.status:#x}")
        return ResumeOverride(refused=_refusal(armed.rule))

    @decides("late-resume")
    def _late_resume(self, armed: ArmedRule, fault: Fault) -> ResumeOverride:
        armed.acted(f"{fault}: continues {armed.rule.delay_ms} ms after its resume")
        return ResumeOverride(delay_s=armed.rule.delay_ms / 1000)

    # -- accesses

    @property
    def on_access(self) -> bool:
        """True when a rule acts on accesses."""
        return "access" in self._on

    def access(
        self,
        operation: Operation,
        side: str,
        segment: Segment,
        write: bool,
        reached: tuple[list[Span], Absent | None],
    ) -> tuple[list[Span], Absent | None]:
        """Return a translation's result, cut at the first page that a rule makes absent.

        A rule stops an operation once, until its next resume; region `local` is the requester's side.
        """
        key: Key | None = self._device.objects.table("mkey").get(segment.lkey >> 8)
        if key is None or segment.lkey in (LOCAL_KEY, NULL_KEY):
            return reached
        region = "local" if side == REQUESTER else "remote"
        first = key.fields["start_addr"] >> PAGE_SHIFT
        for armed in self._on["access"]:
            rule = armed.rule
            begin, end = first + rule.page << PAGE_SHIFT, first + rule.page + rule.pages << PAGE_SHIFT
            length = sum(span.length for span in reached[0])
            if rule.region not in ("", region) or segment.va + length <= begin or segment.va >= end:
                continue
            if self._holds(armed, operation, side, f"page {rule.page} of key {key.value:#x}, {region}"):
                keep = max(begin - segment.va, 0)
                absent = Absent(key, segment.va + keep, segment.length - keep, write)
                reached = _first_bytes(reached[0], keep), absent
        return reached

    @staticmethod
    def _holds(armed: ArmedRule, operation: Operation, side: str, subject: str) -> bool:
        end = (operation.qp.number, side)
        before = armed.holds.get(end)
        if before is not None and before[0] is operation:
            return before[1]
        taken = armed.takes()
        armed.holds[end] = (operation, taken)
        if taken:
            armed.acted(f"{subject}: absent until resumed")
        return taken

    # -- UMRs, commands, queues

    def umr(
        self, qp: QueuePair, key: Key | None, control: wqe.UmrControl, listed: bytes
    ) -> UmrOverride | None:
        """Decide on a UMR that is about to be done; None: do it. One that was delayed is not matched again."""
        if "umr" not in self._on:
            return None
        index, due_s = self._delayed_umrs.get(qp.number, (-1, 0.0))
        if index == qp.sent:
            left_s = due_s - self._device.clock()
            if left_s > 0:
                return UmrOverride(delay_s=left_s)
            del self._delayed_umrs[qp.number]
            return None
        change = _umr_of(control, listed)
        for armed in self._acting("umr", umr=change, phase=self._phase):
            number = key.value if key is not None else 0
            override: UmrOverride = DECISIONS[armed.rule.kind](
                self, armed, qp, f"UMR ({change}) of key {number:#x}"
            )
            return override
        return None

    @decides("delay-umr")
    def _delay_umr(self, armed: ArmedRule, qp: QueuePair, subject: str) -> UmrOverride:
        delay_s = armed.rule.delay_ms / 1000
        self._delayed_umrs[qp.number] = (qp.sent, self._device.clock() + delay_s)
        armed.acted(f"{subject}: {armed.rule.delay_ms} ms late")
        return UmrOverride(delay_s=delay_s)

    @decides("fail-umr")
    def _fail_umr(self, armed: ArmedRule, qp: QueuePair, subject: str) -> UmrOverride:
        syndrome = armed.rule.syndrome or cqe.LOCAL_QP_OPERATION
        armed.acted(f"{subject}: not done, syndrome {syndrome:#x}")
        return UmrOverride(syndrome=syndrome, flush_s=armed.rule.delay_ms / 1000)

    def command(self, name: str, request: bytes | bytearray) -> CommandOverride | None:
        """Decide on a command; None: execute it."""
        if not self._all:
            return None
        self._advance(name, request)
        for armed in self._acting("command", opcode=name, phase=self._phase):
            override: CommandOverride = DECISIONS[armed.rule.kind](self, armed, name)
            return override
        return None

    def _advance(self, name: str, request: bytes | bytearray) -> None:
        """Advance the phase at a user's first CQ, then at the first QP that is ready. Commands carry the user's uid."""
        by_user = len(request) >= 4 and request[2:4] != b"\0\0"
        if self._phase == START and name == "CREATE_CQ" and by_user:
            self._phase = USER
        elif self._phase == USER and name == "RTR2RTS_QP":
            self._phase = CONNECTED

    @decides("delay-command")
    def _delay_command(self, armed: ArmedRule, name: str) -> CommandOverride:
        armed.acted(f"{name}: {armed.rule.delay_ms} ms late")
        return CommandOverride(delay_s=armed.rule.delay_ms / 1000)

    @decides("fail-command")
    def _fail_command(self, armed: ArmedRule, name: str) -> CommandOverride:
        armed.acted(f"{name}: status {armed.rule.status:#x}, syndrome {armed.rule.syndrome:#x}")
        return CommandOverride(refused=_refusal(armed.rule))

    @decides("lose-command")
    def _lose_command(self, armed: ArmedRule, name: str) -> CommandOverride:
        armed.acted(f"{name}: never answered")
        return CommandOverride(lost=True)

    def second_queue(self) -> QueueOverride:
        """Decide on another event queue for page faults, before it is created."""
        first_wins = False
        for armed in self._acting("queue"):
            override: QueueOverride = DECISIONS[armed.rule.kind](self, armed)
            first_wins |= override.first_wins
            if override.refused is not None:
                return QueueOverride(first_wins, override.refused)
        return QueueOverride(first_wins)

    @decides("refuse-second-queue")
    def _refuse_second_queue(self, armed: ArmedRule) -> QueueOverride:
        armed.acted(f"a second queue for page faults is refused with status {armed.rule.status:#x}")
        return QueueOverride(refused=_refusal(armed.rule))

    @decides("first-queue-wins")
    def _first_queue_wins(self, armed: ArmedRule) -> QueueOverride:
        armed.acted("page faults go to the first of two queues")
        return QueueOverride(first_wins=True)


def _refusal(rule: Rule) -> FirmwareError:
    status = Status(rule.status) if rule.status in Status._value2member_map_ else Status.INTERNAL
    return FirmwareError(status, rule.syndrome, "a rule")


def _first_bytes(spans: list[Span], count: int) -> list[Span]:
    """Return the first `count` bytes of a list of spans."""
    kept = []
    for span in spans:
        if count <= 0:
            break
        kept.append(Span(span.address, min(span.length, count)))
        count -= span.length
    return kept


def _umr_of(control: wqe.UmrControl, listed: bytes) -> str:
    """Classify a UMR: `map` sets pages, `zap` clears them, `context` changes the key itself."""
    if not listed or control.mkey_mask:
        return "context"
    return "map" if any(listed) else "zap"
