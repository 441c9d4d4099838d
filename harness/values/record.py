"""A record: all that is stored of one case."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Dict, Optional, Tuple

from harness.values.answer import Answer
from harness.values.case import Case
from harness.values.rule import Outcome
from harness.values.symptom import Symptom

VERDICTS = ("pass", "fail", "skip", "error", "known")


@dataclass(frozen=True)
class Reason:
    """A line on why a case did not simply pass.

    Kinds: count, data, console, leak, latency, workload, finding, rule, exact, known, setup, need.
    """

    kind: str
    text: str

    def __str__(self) -> str:
        return f"{self.kind}: {self.text}"


@dataclass(frozen=True)
class Finding:
    """A protocol violation by the driver, or in its packets."""

    kind: str
    subject: str
    detail: str


@dataclass(frozen=True)
class Unknown:
    """A firmware command that the card does not know, how often it was sent, and a stub of the method to write."""

    name: str
    count: int
    stub: str


@dataclass(frozen=True)
class DeviceReport:
    """A device's own report of a case: findings, counters (dotted names), unknown commands, effects of rules."""

    findings: Tuple[Finding, ...] = ()
    counters: Dict[str, int] = field(default_factory=dict)
    unknown: Tuple[Unknown, ...] = ()
    rules: Tuple[Outcome, ...] = ()


@dataclass(frozen=True)
class Record:
    """One case and its result.

    Verdicts: `pass`; `fail` (the kernel under test is wrong); `known` (a known failure of its plan on this
    series); `skip` (a need is missing); `error` (we could not run it). `environment` names the
    exact kernel, QEMU, image digest, clock and accelerator that ran. `started` is UTC, ISO 8601. `log` names
    the machine's console log and `card_log` a card's conversation with the driver, if they were stored.
    """

    VERSION = 2

    plan: str
    case: Case
    verdict: str
    reasons: Tuple[Reason, ...] = ()
    answer: Optional[Answer] = None
    symptoms: Tuple[Symptom, ...] = ()
    device_report: DeviceReport = field(default_factory=DeviceReport)
    environment: Dict[str, str] = field(default_factory=dict)
    started: str = ""
    wall_s: float = 0.0
    log: str = ""
    card_log: str = ""
