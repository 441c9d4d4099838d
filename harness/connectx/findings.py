"""Findings: protocol violations by the driver, and defects of the card itself."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Finding:
    """One violation: `kind` is a key of KINDS, `subject` the object ("cq 5"), `detail` a sentence for people."""

    kind: str
    subject: str
    detail: str

    def to_json(self) -> dict[str, str]:
        """Return the finding as the control socket and the log carry it."""
        return {"kind": self.kind, "subject": self.subject, "detail": self.detail}


MAX_FINDINGS = 10_000
MAX_REPEATS = 16
"""Limits in all, and of one finding: a timer that looks every few milliseconds finds the same each time."""

KINDS = {
    "use-after-destroy": "a command, doorbell or WQE names an object that was destroyed",
    "no-such-object": "... that never existed",
    "destroy-in-use": "an object is destroyed while others refer to it",
    "bad-qp-transition": "a QP is moved between states that have no such edge",
    "free-key-in-use": "a key is freed, or changed, against the state that its UMR checks",
    "pages-lost": "pages are lent twice, or not taken back when the HCA is disabled",
    "left-at-teardown": "objects exist when the HCA is torn down",
    "bad-address": "an address outside the guest's memory",
    "bad-value": "a field, size or doorbell that makes no sense",
    "bad-resume": "a page fault is resumed that is not open, or as another type",
    "fault-loop": "a page fault is resumed again and again without the page",
    "model-error": "not the driver: a defect of the card itself; the log has the trace",
    "queue-overrun": "an event or completion queue has no room",
}


class Findings:
    """All findings of a run, in order. `log` receives each one that is recorded."""

    def __init__(self, log: Callable[[Finding], None]) -> None:
        self._log = log
        self.reported: list[Finding] = []
        self._repeats: Counter[Finding] = Counter()

    def report(self, kind: str, subject: str, detail: str) -> None:
        """Record a finding, at most MAX_REPEATS times the same and MAX_FINDINGS in all."""
        if len(self.reported) >= MAX_FINDINGS:
            return
        finding = Finding(kind, subject, detail)
        self._repeats[finding] += 1
        if self._repeats[finding] <= MAX_REPEATS:
            self.reported.append(finding)
            self._log(finding)
