"""Runtime state of an armed injection rule."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

from harness.connectx.objects.operation import Operation
from harness.values import random_events
from harness.values.rule import KINDS, Outcome, Rule

MAX_NOTES = 3


@dataclass(eq=False)
class ArmedRule:
    """A rule on a card, and its counts. `holds`: by (QP number, side) the operation it stopped, and whether still."""

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
        """Return the next event with random fields."""
        if self._events is None:
            self._events = random_events.events(scheme, self.rule.seed)
        return next(self._events)

    def takes(self) -> bool:
        """Count a match; return whether the rule acts on it."""
        rule = self.rule
        self.matches += 1
        if rule.count and self.hits >= rule.count:
            return False
        behind = self.matches - rule.nth
        if behind < 0 or behind % rule.every:
            return False
        return rule.percent >= 100 or self._draw.randrange(100) < rule.percent

    def acted(self, note: str) -> None:
        """Count an action, with a note for people."""
        self.hits += 1
        if len(self.notes) < MAX_NOTES:
            self.notes.append(note)

    def outcome(self) -> Outcome:
        """Return the counts and notes as the control socket carries them."""
        text = "; ".join(self.notes)
        if self.hits > len(self.notes):
            text += f"; and {self.hits - len(self.notes)} more"
        if self.answers:
            text += ": " + ", ".join(f"{count} {answer}" for answer, count in sorted(self.answers.items()))
        text = text or f"{KINDS[self.rule.kind].text}: did not happen, {self.matches} matched"
        return Outcome(self.rule.kind, self.matches, self.hits, text, self.rule.optional)
