"""A rule on a card, and what rules may do to the work that they look at."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

from harness.connectx.commands.registry import FirmwareError
from harness.values import random_events
from harness.values.rule import KINDS, Outcome, Rule

if TYPE_CHECKING:
    from harness.connectx.datapath.wqe_parser import Operation

MAX_NOTES = 3


class Delay(Exception):
    """Work that a rule makes wait: look again in `delay_s`."""

    def __init__(self, delay_s: float) -> None:
        super().__init__()
        self.delay_s = delay_s


class CommandOverride(NamedTuple):
    """What becomes of a command: wait first, never be answered, or be answered with a status instead."""

    delay_s: float = 0.0
    lost: bool = False
    refused: FirmwareError | None = None


@dataclass(eq=False)
class Armed:
    """A rule on a card, with what it did; `holds`: by QP and side the operation it made wait, and whether still."""

    rule: Rule
    matches: int = 0
    hits: int = 0
    notes: list[str] = field(default_factory=list)
    answers: Counter[str] = field(default_factory=Counter)
    holds: dict[tuple[int, str], tuple[Operation, bool]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._draw = random.Random(self.rule.seed)
        self._events: Iterator[tuple[str, dict[str, int]]] | None = None

    def drawn(self, scheme: str) -> tuple[str, dict[str, int]]:
        """The next event with random fields."""
        if self._events is None:
            self._events = random_events.events(scheme, self.rule.seed)
        return next(self._events)

    def takes(self) -> bool:
        """Count a thing that matches; whether the rule acts on it."""
        rule = self.rule
        self.matches += 1
        if rule.count and self.hits >= rule.count:
            return False
        behind = self.matches - rule.nth
        if behind < 0 or behind % rule.every:
            return False
        return rule.percent >= 100 or self._draw.randrange(100) < rule.percent

    def acted(self, note: str) -> None:
        """It did something."""
        self.hits += 1
        if len(self.notes) < MAX_NOTES:
            self.notes.append(note)

    def outcome(self) -> Outcome:
        """What it did, as it travels."""
        said = "; ".join(self.notes)
        if self.hits > len(self.notes):
            said += f"; and {self.hits - len(self.notes)} more"
        if self.answers:
            said += ": " + ", ".join(f"{count} {how}" for how, count in sorted(self.answers.items()))
        text = said or f"{KINDS[self.rule.kind].text}: did not happen, {self.matches} matched"
        return Outcome(self.rule.kind, self.matches, self.hits, text, self.rule.optional)
