"""A page-fault handler in Python: a thread that receives the module's events and answers them."""

from __future__ import annotations

import sys
import threading
import time
from typing import Dict, Iterator, List, Optional, Sequence, Tuple

from harness.guest.kmod.odpnl import (
    Fault,
    Listener,
    Refused,
)
from harness.values import random_events
from harness.values.rule import Rule

QUIET_S = 0.2
"""With no event for so long, all have been received."""

UNKNOWN = {"2015": ("queue", 1 << 22), "transport": ("token", 1 << 22), "memory": ("token", 1 << 46)}
"""By form, the field that identifies a fault, and the bit to flip in it for a fault that does not exist."""

TYPE_BITS = (1, 2, 4)
SWITCH_S = 0.0002
"""Upper bound for which the case's thread, which polls for completions, may keep the handler from running."""

MAX_TIMES = 1000
_PAGE_SHIFT = 12
_IN_PAGES = ("demand", "pre", "post")


class Handler(threading.Thread):
    """Answers each forwarded fault as `answer` says (one of values.module.ANSWERS).

    Events that the rule `drawn-events` injects are compared with what it drew, and resumed.
    """

    def __init__(self, listener: Listener, answer: str, rules: Sequence[Rule], form: str) -> None:
        super().__init__(name="page-fault handler", daemon=True)
        self._listener = listener
        listener.timeout_s = QUIET_S
        self._form = form
        self._answer = getattr(self, f"_{answer}")
        self._delayed: List[Fault] = []
        self._expected = _expected(rules, form)
        self._finished = threading.Event()
        self.answers: Dict[str, int] = {}
        self.received = self.drawn = 0
        self.answer_ns: List[int] = []
        self._first_ns = self._last_ns = 0
        self.difference = ""

    def run(self) -> None:
        """Receive events until finished, and none has come for QUIET_S."""
        sys.setswitchinterval(SWITCH_S)
        while not self._finished.is_set():
            for fault in self._listener:
                self._receive(fault)

    def finish(self) -> None:
        """Receive what is left after the case's work, then answer the delayed faults."""
        self._finished.set()
        self.join()
        for fault in self._delayed:
            self._resume(fault)

    @property
    def span_ns(self) -> int:
        """Time from the first event to the last, as the module recorded them."""
        return self._last_ns - self._first_ns

    def _receive(self, fault: Fault) -> None:
        self.received += 1
        self._last_ns = fault.fields["seen_ns"]
        self._first_ns = self._first_ns or self._last_ns
        if self._expected is not None and random_events.is_drawn(self._form, fault.fields):
            self._compare(fault, *next(self._expected))
            if fault.action == "forward":
                self._resume(fault)
        elif fault.action == "forward":
            self._answer(fault)

    def _compare(self, fault: Fault, form: str, expected: Dict[str, int]) -> None:
        wrong = [] if fault.sub_type == form else [f"form: expected {form}, found {fault.sub_type}"]
        for name, value in expected.items():
            shift = _PAGE_SHIFT if name in _IN_PAGES else 0
            field = fault.fields.get(name, -1)
            if field != value << shift:
                wrong.append(f"{name}: expected {value << shift:#x}, found {field:#x}")
        if wrong:
            self.difference = self.difference or f"event {self.received}: {'; '.join(wrong)}"
        else:
            self.drawn += 1

    # -- answers

    def _send(self, fault: Fault, error: bool = False, **changed: int) -> None:
        try:
            status = fault.resume(error, **changed).status
            result = f"status.{status}"
        except Refused as refusal:
            result = f"errno.{refusal.errno}"
        self.answers[result] = self.answers.get(result, 0) + 1
        if len(self.answer_ns) < MAX_TIMES:
            self.answer_ns.append(time.monotonic_ns() - fault.fields["seen_ns"])

    def _resume(self, fault: Fault) -> None:
        self._send(fault)

    def _error(self, fault: Fault) -> None:
        self._send(fault, error=True)

    def _twice(self, fault: Fault) -> None:
        self._send(fault)
        self._send(fault)

    def _unknown(self, fault: Fault) -> None:
        name, bit = UNKNOWN[self._form]
        self._send(fault, **{name: fault.fields[name] ^ bit})
        self._send(fault)

    def _flags(self, fault: Fault) -> None:
        for bit in TYPE_BITS:
            self._send(fault, type=fault.fields["type"] ^ bit)
        self._send(fault)

    def _late(self, fault: Fault) -> None:
        self._delayed.append(fault)

    def _nothing(self, fault: Fault) -> None:
        """Leave the fault unanswered."""


def _expected(rules: Sequence[Rule], form: str) -> Optional[Iterator[Tuple[str, Dict[str, int]]]]:
    for rule in rules:
        if rule.kind == "drawn-events":
            return random_events.events(form, rule.seed)
    return None
