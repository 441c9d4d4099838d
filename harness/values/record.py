"""A record: all that is kept of one case, for people and for machines."""

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
    """Why a case did not simply pass, in a line.

    Kinds: law, data, console, leak, latency, workload, finding, rule, exact, known, setup, need.
    """

    kind: str
    text: str

    def __str__(self) -> str:
        return f"{self.kind}: {self.text}"


@dataclass(frozen=True)
class Finding:
    """Something that the driver did, or that came over its wire, which the card's interface forbids."""

    kind: str
    subject: str
    detail: str


@dataclass(frozen=True)
class Unknown:
    """A firmware command that the card does not know, how often it came, and a stub of what would answer it."""

    name: str
    count: int
    stub: str


@dataclass(frozen=True)
class DeviceReport:
    """What a device itself saw of a case: findings, counters (dotted names), commands it did not know; what each
    rule of the case did."""

    findings: Tuple[Finding, ...] = ()
    counters: Dict[str, int] = field(default_factory=dict)
    unknown: Tuple[Unknown, ...] = ()
    rules: Tuple[Outcome, ...] = ()


@dataclass(frozen=True)
class Record:
    """One case and what came of it.

    Verdicts: `pass`; `fail` (the kernel under test did wrong); `known` (failed exactly as its plan says it
    does on this series); `skip` (a need is missing); `error` (we could not run it). `environment` names the
    exact kernel, QEMU, image digest, clock and accelerator that ran. `started` is UTC, ISO 8601. `log` names
    the machine's console and `card_log` a card's conversation with the driver, where they were kept.
    """

    VERSION = 1

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
