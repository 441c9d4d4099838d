"""Bugs of the past, brought back one by one: does a plan that was not made for this one notice?

Ref: testplans/regressions/, an entry each
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from harness.campaign.corpus_entry import (
    Entry,
    apply,
)
from harness.campaign.runs import RegressRequest, answers, copied, modules
from harness.errors import HarnessError, UsageError
from harness.kernel.source import source
from harness.kernel.subsystems import touched
from harness.plan.session import Session
from harness.values.record import Record

CAUGHT, MISSED, CANNOT_APPLY = "caught", "missed", "cannot_apply"


@dataclass(frozen=True)
class Outcome:
    """What became of an entry: CAUGHT (`case` fails for `reason`, and does not without the bug), MISSED, or
    CANNOT_APPLY (`reason`: the archive has no such kernel any more, the edit does not fit it, or does not build).
    """

    entry: str
    fix: str
    kernel: str
    outcome: str
    case: str
    reason: str
    wall_s: float


def run(
    session: Session, entries: Sequence[Entry], plans: Path, results: Path, jobs: int
) -> Iterator[Outcome]:
    """Bring each bug back and run its plans with and without it; the answers without it are kept by content."""
    for entry in entries:
        session.say(f"{entry.name}: {entry.title}")
        began = time.monotonic()
        blank = Outcome(entry.name, entry.fix, entry.kernel, CANNOT_APPLY, "", "", 0.0)
        try:
            found = _run(session, entry, blank, plans, results / entry.name, jobs)
        except HarnessError as error:
            found = replace(blank, reason=_line(error))
        yield replace(found, wall_s=round(time.monotonic() - began, 1))


def _line(error: HarnessError) -> str:
    return "; ".join([error.headline, *error.evidence[:2]])


def _run(session: Session, entry: Entry, blank: Outcome, plans: Path, results: Path, jobs: int) -> Outcome:
    kernel = session.kernel(entry.kernel)
    stock = source(kernel, session.archive)
    parts, outside = touched(edit.file for edit in entry.edits)
    if outside:
        raise UsageError(f"{entry.name}: {outside[0]} is in no module that is rebuilt here")
    files = [plans / f"{name}.toml" for name in entry.plans]
    # The plans' own clocks: nothing is said of latencies here.
    asked = RegressRequest(entry.name, entry.kernel, files, results, seeds=1, cut=0, jobs=jobs)
    question = replace(asked, expression=entry.expression, failures=1, paced=False)
    with session.ledger.scratch_folder("corpus") as tree:
        copied(stock, parts, tree)
        apply(entry, tree)
        base, _ = modules(session, kernel, stock, parts)
        bugged, _ = modules(session, kernel, tree, parts)
    before = {r.case.id: r for r in answers(session, question, kernel, base, parts, "base")}
    after = answers(session, question, kernel, bugged, parts, "bug")
    outcome, case, reason = verdict(before, after)
    return replace(blank, outcome=outcome, case=case, reason=reason)


def verdict(before: Mapping[str, Record], after: Sequence[Record]) -> tuple[str, str, str]:
    """Outcome, case and reason of an entry, from the records without and with its bug."""
    for record in after:
        old = before.get(record.case.id)
        if record.verdict == "fail" and old is not None and old.verdict in ("pass", "known"):
            reason = "; ".join(map(str, record.reasons[:2]))
            return CAUGHT, record.case.id, reason
    ran = [record for record in after if record.verdict in ("pass", "known", "fail")]
    if not ran:
        why = next((reason.text for record in after for reason in record.reasons), "no case was executed")
        return CANNOT_APPLY, "", why
    return MISSED, "", f"{len(ran)} cases ran as without it"
