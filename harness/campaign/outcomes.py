"""How the runs of a case end, with and without a change: new failures, old ones that are gone, what cannot be told."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from harness.campaign.statistics import (
    more_often,
    significant,
)
from harness.values.record import Record

BETTER, SAME, WORSE, CANNOT_TELL = "better", "same", "worse", "cannot tell"
WELL, AS_KNOWN, FAILED = range(3)
"""How badly a run ends: well (or better than is known of it), as known, with a failure."""

# What differs from run to run of one failure.
_NUMBERS = re.compile(r"\b(0x)?[0-9a-f]*[0-9][0-9a-f]*\b")


@dataclass(frozen=True)
class Change:
    """One difference that a verdict rests on: WORSE, BETTER or CANNOT_TELL, about which case, and the evidence.

    `outcome` says that it is one of how a case ends; else `stage` is the figure's.
    """

    verdict: str
    case: str
    text: str
    outcome: bool = False
    stage: str = ""


def overall(changes: Sequence[Change]) -> str:
    """The verdict that these changes make."""
    verdicts = {change.verdict for change in changes}
    return next((verdict for verdict in (WORSE, CANNOT_TELL, BETTER) if verdict in verdicts), SAME)


def severity(records: Sequence[Record]) -> int:
    """How badly the worst of these runs ends."""
    return max(map(how_ended, records), default=WELL)


def how_ended(record: Record) -> int:
    """WELL, AS_KNOWN or FAILED. A case that its plan knows to fail, and that does not, has the verdict `fail` so that
    somebody notices.
    """
    if record.verdict == "fail":
        return WELL if record.reasons and record.reasons[0].kind == "known" else FAILED
    return AS_KNOWN if record.verdict == "known" else WELL


def differing_ends(case: str, before: Sequence[Record], after: Sequence[Record], ended: bool) -> list[Change]:
    """What differs before any figure: new failures, old ones that are gone, cases that ran on one side only; `ended`
    says that the side without the change may have stopped at its failures.
    """
    if not after or not before:
        if after and ended and severity(after) < FAILED:
            return []
        return [Change(CANNOT_TELL, case, "ran on one side only: the other ended before it", True)]
    old, new = severity(before), severity(after)
    not_run = [[record for record in side if record.verdict == "error"] for side in (before, after)]
    if len(not_run[0]) == len(before):
        return [Change(CANNOT_TELL, case, _texts(not_run[0][0]), True)]
    if new > old and _tells(before, after):
        failed = [record for record in after if how_ended(record) == new]
        text = f"fails in {len(failed)} of {len(after)} runs: {_reasons(failed[0])}"
        return [Change(WORSE, case, text, True)]
    lacks = [[record for record in side if record.verdict == "skip"] for side in (before, after)]
    if lacks[1] and not lacks[0]:
        return [Change(WORSE, case, f"cannot run any more: {_reasons(lacks[1][0])}", True)]
    if any(not_run):
        return [Change(CANNOT_TELL, case, _texts([*not_run[0], *not_run[1]][0]), True)]
    if old and not new and _tells(after, before):
        failed = [record for record in before if how_ended(record) == old]
        return [Change(BETTER, case, f"no longer fails: {_reasons(failed[0])}", True)]
    return _otherwise(case, before, after) if min(old, new) == FAILED else []


def _tells(good: Sequence[Record], bad: Sequence[Record]) -> bool:
    """Whether the side that is bad ends otherwise than the other for more than chance. A defect that is known to come
    `sometimes` passes where it does not come: there it must do so often enough.
    """
    known = [record for record in bad if how_ended(record) == AS_KNOWN]
    if severity(bad) == FAILED or not any(record.verdict == "pass" for record in good):
        return True
    return significant(more_often((0, len(good)), (len(known), len(bad))), 1)


def _otherwise(case: str, before: Sequence[Record], after: Sequence[Record]) -> list[Change]:
    """Both sides fail: whether the changed one does for other reasons, or more often."""
    failed = [[record for record in side if how_ended(record) == FAILED] for side in (before, after)]
    kinds = {reason.kind for record in failed[0] for reason in record.reasons}
    prints = {symptom.fingerprint for record in before for symptom in record.symptoms}
    for record in failed[1]:
        other = [str(reason) for reason in record.reasons if reason.kind not in kinds]
        other += [f"console: {each.headline}" for each in record.symptoms if each.fingerprint not in prints]
        if other:
            return [Change(WORSE, case, f"fails without it, too, but not for that: {other[0]}", True)]
    ways = [[_ways(record) for record in side] for side in failed]
    for way in sorted(set().union(*ways[1])):
        counts = [sum(way in one for one in side) for side in ways]
        if significant(more_often((counts[0], len(before)), (counts[1], len(after))), 1):
            first = next(record for record, one in zip(failed[1], ways[1], strict=True) if way in one)
            told = f"{counts[1]} of {len(after)} runs, without it in {counts[0]} of {len(before)}"
            return [Change(WORSE, case, f"fails in {told}: {_reasons(first)}", True)]
    return []


def _ways(record: Record) -> set[str]:
    """How it fails: at all (empty), and each reason without what differs from run to run of one failure, which is its
    numbers and all but the first of what it says.
    """
    return {"", *(_NUMBERS.sub("N", str(reason).partition("; ")[0]) for reason in record.reasons)}


def _texts(record: Record) -> str:
    return "; ".join(reason.text for reason in record.reasons)


def _reasons(record: Record) -> str:
    return "; ".join(map(str, record.reasons))
