"""Both sides run: once; or for latencies in real time in turns, until a difference of the wanted size would show.

What else the host does meanwhile then meets both alike.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from harness.campaign.compare import JUDGED, Comparison, by_case, by_run, compare
from harness.campaign.outcomes import CANNOT_TELL, Change, overall
from harness.campaign.runs import SIDES, RegressRequest, answers
from harness.campaign.statistics import shows
from harness.kernel.packages import Kernel
from harness.kernel.subsystems import Part
from harness.plan.session import Session
from harness.results.record import read_index
from harness.values.record import Record

MAX_TURNS = 12


def interleaved(
    session: Session,
    question: RegressRequest,
    kernel: Kernel,
    base: Mapping[str, Path],
    patched: Mapping[str, Path],
    parts: Sequence[Part],
) -> tuple[Comparison, tuple[Record, ...], tuple[Record, ...], tuple[str, ...]]:
    """Both sides, one turn; where latencies are judged in real time turn by turn. The comparison, the records of each
    side, and in real time a word for people on what would show.
    """
    before: tuple[Record, ...] = ()
    after: tuple[Record, ...] = ()
    for turn in range(1, MAX_TURNS + 1):
        asked, tail = (replace(question, turn=turn), f"-turn-{turn}") if question.detect else (question, "")
        before += answers(session, asked, kernel, base, parts, f"base{tail}")
        after += answers(session, asked, kernel, patched, parts, f"patched{tail}")
        found = compare(before, after)
        if not question.detect:
            return found, before, after, ()
        least = resolution(before, after)
        session.say(f"turn {turn}: a difference of {least:.1%} would show, {question.detect:.1%} is wanted")
        if least <= question.detect or any(change.outcome for change in found.changes):
            break
        if not any(figure.stage in JUDGED for figure in found.figures):
            unsure = Change(CANNOT_TELL, question.name, "no case has a latency to judge")
            return replace(found, changes=(unsure,), verdict=CANNOT_TELL), before, after, ()
    word = f"real time: {turn} turns of {question.seeds} runs a case; a difference of {least:.1%} would show"
    if least > question.detect and not found.changes:
        unsure = Change(CANNOT_TELL, question.name, f"{word}, {question.detect:.1%} was wanted")
        found = replace(found, changes=(unsure,), verdict=overall([unsure]))
    return found, before, after, (word,)


def not_run(question: RegressRequest, before: Sequence[Record], after: Sequence[Record]) -> list[Change]:
    """A word on runs that neither side came to, since both ended at their failures: of them nothing is known."""
    folders = (question.results / name for name in SIDES)
    expected = max((read_index(folder).expected for folder in folders if folder.is_dir()), default=0)
    lacking = expected - len({record.case.id for record in (*before, *after)})
    if lacking <= 0:
        return []
    text = f"{lacking} of {expected} runs came on neither side: each ended at its failures"
    return [Change(CANNOT_TELL, question.name, text, True)]


def resolution(base: Sequence[Record], patched: Sequence[Record]) -> float:
    """The largest difference that would not show in one of the figures JUDGED of one case, as a part of it."""
    one, other = by_case(base), by_case(patched)
    pairs: list[tuple[list[float], list[float]]] = []
    for case in set(one) & set(other):
        sides = [
            [record for record in side if record.answer is not None] for side in (one[case], other[case])
        ]
        mine, theirs = (by_run(side, False) for side in sides)
        for stage in set(JUDGED) & set(mine) & set(theirs):
            pairs.append((list(mine[stage].values()), list(theirs[stage].values())))
    return max((shows(*pair, len(pairs)) for pair in pairs), default=float("inf"))
