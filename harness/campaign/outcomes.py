"""Outcomes of a case on both sides: new failures, failures that are gone, and what is inconclusive."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from harness.campaign.statistics import (
    more_often,
    significant,
)
from harness.values.record import Record

IMPROVEMENT, NO_DIFFERENCE, REGRESSION, INCONCLUSIVE = (
    "improvement",
    "no difference",
    "regression",
    "inconclusive",
)
WELL, AS_KNOWN, FAILED = range(3)
"""Severity of a run's end: it passes (or an expected failure does not come), is a known failure, fails."""

MAX_EXCERPT = 24
"""Lines of a console report that a difference carries."""

# What differs from run to run of one failure.
_NUMBERS = re.compile(r"\b(0x)?[0-9a-f]*[0-9][0-9a-f]*\b")


@dataclass(frozen=True)
class Difference:
    """One difference that a verdict rests on: REGRESSION, IMPROVEMENT or INCONCLUSIVE, of which case, and evidence.

    `outcome`: it is one of how a case ends; else `metric` names the metric. `confirmed_builds` more builds of the
    patched source show it too. `excerpt` are lines of the console.
    """

    verdict: str
    case: str
    text: str
    outcome: bool = False
    metric: str = ""
    confirmed_builds: int = 0
    excerpt: tuple[str, ...] = ()


def overall(differences: Sequence[Difference]) -> str:
    """Return the verdict of all differences: a regression outranks what is inconclusive, that an improvement."""
    verdicts = {difference.verdict for difference in differences}
    ranked = (REGRESSION, INCONCLUSIVE, IMPROVEMENT)
    return next((verdict for verdict in ranked if verdict in verdicts), NO_DIFFERENCE)


def severity(records: Sequence[Record]) -> int:
    """Return the severity of the worst of these runs."""
    return max(map(how_ended, records), default=WELL)


def how_ended(record: Record) -> int:
    """Return WELL, AS_KNOWN or FAILED. An unexpected pass of a known failure has the verdict `fail`, but ends WELL."""
    if record.verdict == "fail":
        return WELL if record.reasons and record.reasons[0].kind == "known" else FAILED
    return AS_KNOWN if record.verdict == "known" else WELL


def compare_outcomes(
    case: str, before: Sequence[Record], after: Sequence[Record], stopped: bool
) -> list[Difference]:
    """Compare how the runs of a case end: new failures, failures that are gone, cases that ran on one side only.

    `stopped`: the baseline may have stopped at its failures before it came to this case.
    """
    if not after or not before:
        if after and stopped and severity(after) < FAILED:
            return []
        return [Difference(INCONCLUSIVE, case, "ran on one side only: the other stopped before it", True)]
    old, new = severity(before), severity(after)
    not_run = [[record for record in side if record.verdict == "error"] for side in (before, after)]
    if len(not_run[0]) == len(before):
        return [Difference(INCONCLUSIVE, case, _texts(not_run[0][0]), True)]
    if new > old and _more_than_chance(before, after):
        failed = [record for record in after if how_ended(record) == new]
        text = f"fails in {len(failed)} of {len(after)} patched runs, in 0 of {len(before)} baseline runs: "
        return [_outcome(REGRESSION, case, text + _reasons(failed[0]), failed[0])]
    lacks = [[record for record in side if record.verdict == "skip"] for side in (before, after)]
    if lacks[1] and not lacks[0]:
        return [Difference(REGRESSION, case, f"cannot run any more: {_reasons(lacks[1][0])}", True)]
    if any(not_run):
        return [Difference(INCONCLUSIVE, case, _texts([*not_run[0], *not_run[1]][0]), True)]
    if old and not new and _more_than_chance(after, before):
        failed = [record for record in before if how_ended(record) == old]
        return [Difference(IMPROVEMENT, case, f"no longer fails: {_reasons(failed[0])}", True)]
    return _other_failures(case, before, after) if min(old, new) == FAILED else []


def _outcome(verdict: str, case: str, text: str, record: Record) -> Difference:
    excerpt = record.symptoms[0].excerpt[:MAX_EXCERPT] if record.symptoms else ()
    return Difference(verdict, case, text, True, excerpt=tuple(excerpt))


def _more_than_chance(good: Sequence[Record], bad: Sequence[Record]) -> bool:
    """Return True if the bad side fails more often than by chance.

    A known failure that comes `sometimes` passes where it does not come: it must come significantly more often.
    """
    known = [record for record in bad if how_ended(record) == AS_KNOWN]
    if severity(bad) == FAILED or not any(record.verdict == "pass" for record in good):
        return True
    return significant(more_often((0, len(good)), (len(known), len(bad))), 1)


def _other_failures(case: str, before: Sequence[Record], after: Sequence[Record]) -> list[Difference]:
    """Compare a case that fails on both sides: other reasons, another console report, or significantly more often."""
    failed = [[record for record in side if how_ended(record) == FAILED] for side in (before, after)]
    kinds = {reason.kind for record in failed[0] for reason in record.reasons}
    prints = {symptom.fingerprint for record in before for symptom in record.symptoms}
    for record in failed[1]:
        other = [str(reason) for reason in record.reasons if reason.kind not in kinds]
        other += [f"console: {each.headline}" for each in record.symptoms if each.fingerprint not in prints]
        if other:
            text = f"fails on the baseline too, but not for this reason: {other[0]}"
            return [_outcome(REGRESSION, case, text, record)]
    ways = [[_failures(record) for record in side] for side in failed]
    for way in sorted(set().union(*ways[1])):
        counts = [sum(way in one for one in side) for side in ways]
        if significant(more_often((counts[0], len(before)), (counts[1], len(after))), 1):
            first = next(record for record, one in zip(failed[1], ways[1], strict=True) if way in one)
            text = f"fails in {counts[1]} of {len(after)} patched runs, in {counts[0]} of {len(before)} baseline runs"
            return [_outcome(REGRESSION, case, f"{text}: {_reasons(first)}", first)]
    return []


def _failures(record: Record) -> set[str]:
    """Return the failures of a run: any (empty), and each reason.

    Reasons are without numbers, and their first part only: the rest differs from run to run of one failure.
    """
    return {"", *(_NUMBERS.sub("N", str(reason).partition("; ")[0]) for reason in record.reasons)}


def _texts(record: Record) -> str:
    return "; ".join(reason.text for reason in record.reasons)


def _reasons(record: Record) -> str:
    return "; ".join(map(str, record.reasons))
