"""Reintroduce bugs of the past one by one, and check that a plan that was not written for the bug catches it.

Ref: testplans/regressions/, an entry each
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from harness.campaign.builds import build_modules, copy_sources
from harness.campaign.corpus_entry import (
    Entry,
    apply,
)
from harness.campaign.question import RegressRequest
from harness.campaign.result_cache import ModuleRun, run_cases
from harness.errors import HarnessError, UsageError
from harness.kernel.source import source
from harness.kernel.subsystems import touched
from harness.plan.session import Session
from harness.values.record import Record

CAUGHT, MISSED, CANNOT_APPLY = "caught", "missed", "cannot_apply"


@dataclass(frozen=True)
class Outcome:
    """The outcome of an entry: CAUGHT (`case` fails for `reason`, and not on the baseline), MISSED or CANNOT_APPLY.

    CANNOT_APPLY: the archive no longer has the kernel, the edit does not apply to it, or it does not build (`reason`).
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
    """Reintroduce each bug and run its plans with and without it; records are cached by content."""
    for entry in entries:
        session.say(f"{entry.name}: {entry.title}")
        began = time.monotonic()
        blank = Outcome(entry.name, entry.fix, entry.kernel, CANNOT_APPLY, "", "", 0.0)
        try:
            outcome = _run(session, entry, blank, plans, results / entry.name, jobs)
        except HarnessError as error:
            outcome = replace(blank, reason=_line(error))
        yield replace(outcome, wall_s=round(time.monotonic() - began, 1))


def _line(error: HarnessError) -> str:
    return "; ".join([error.headline, *error.evidence[:2]])


def _run(session: Session, entry: Entry, blank: Outcome, plans: Path, results: Path, jobs: int) -> Outcome:
    kernel = session.kernel(entry.kernel)
    stock = source(kernel, session.archive)
    parts, outside = touched(edit.file for edit in entry.edits)
    if outside:
        raise UsageError(f"{entry.name}: {outside[0]} is in no module that is rebuilt")
    files = [plans / f"{name}.toml" for name in entry.plans]
    # The plans' own clocks: latencies are not compared.
    request = RegressRequest(entry.name, entry.kernel, files, results, seeds=1, cut=0, jobs=jobs)
    request = replace(request, expression=entry.expression, failures=1, icount=False)
    with session.ledger.scratch_folder("corpus") as tree:
        copy_sources(stock, parts, tree)
        apply(entry, tree)
        baseline = build_modules(session, kernel, stock, parts, lines=False)
        bug = build_modules(session, kernel, tree, parts, lines=False)
    runs = (
        ModuleRun(request, kernel, built.files, parts, name)
        for name, built in (("baseline", baseline), ("bug", bug))
    )
    before, after = (run_cases(session, run) for run in runs)
    outcome, case, reason = verdict({record.case.id: record for record in before}, after)
    return replace(blank, outcome=outcome, case=case, reason=reason)


def verdict(before: Mapping[str, Record], after: Sequence[Record]) -> tuple[str, str, str]:
    """Return outcome, case and reason of an entry, from the records without (by case) and with its bug."""
    for record in after:
        old = before.get(record.case.id)
        if record.verdict == "fail" and old is not None and old.verdict in ("pass", "known"):
            reason = "; ".join(map(str, record.reasons[:2]))
            return CAUGHT, record.case.id, reason
    ran = [record for record in after if record.verdict in ("pass", "known", "fail")]
    if not ran:
        why = next((reason.text for record in after for reason in record.reasons), "no case was executed")
        return CANNOT_APPLY, "", why
    return MISSED, "", f"no case of {len(ran)} fails because of the bug"
