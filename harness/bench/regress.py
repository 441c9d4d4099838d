"""What a verdict on a patch costs against the compiler alone, and how often a change of nothing is called one."""

from __future__ import annotations

import secrets
import statistics
import time
from dataclasses import dataclass, replace
from pathlib import Path

from harness.bench.figures import Figures, Stopped
from harness.campaign import noise
from harness.campaign.change import Tree
from harness.campaign.outcomes import SAME
from harness.campaign.regress import judge
from harness.campaign.runs import RegressRequest, answers, copied, modules, modules_with_lines
from harness.kernel.packages import Kernel
from harness.kernel.source import source
from harness.kernel.subsystems import Part
from harness.plan.session import Session

MAKES = 3


@dataclass(frozen=True)
class Regress(Figures):
    """One part of the kernel, `seeds` runs of each case.

    `make_s` is what the compiler needs for both sides, clean, the median of MAKES; `verdict_s` is patch to verdict as
    `regress` gives it, compiler and what ran of the changed lines included, with the base's objects and answers and
    the null band known already. `false_alarms` are verdicts other than "same" on `null_changes` different changes that
    change nothing; `unconfirmed` counts those of which a figure moved in one build and not in others.
    `null_band_instructions` are the bands by stage.
    """

    kernel: str
    module: str
    cases: int
    seeds: int
    make_s: float
    verdict_s: float
    ratio_to_make: float
    null_changes: int
    false_alarms: int
    alarms: tuple[str, ...]
    unconfirmed: int
    null_band_instructions: dict[str, float]


def measure(session: Session, question: RegressRequest, part: Part, changes: int) -> Regress:
    """Judge `changes` changes that change nothing, each built and prepared anew. `question.results` is filled.

    Ctrl-C raises Stopped with the figures of those that were judged, if any was.
    """
    kernel = session.kernel(question.kernel)
    stock = source(kernel, session.archive)
    base, _ = modules(session, kernel, stock, [part])
    before = answers(session, question, kernel, base, [part], "base")
    bands = noise.bands(session, question, kernel, stock, [part], before)
    makes_s = [_make(session, kernel, stock, part) for _ in range(MAKES)]
    judged: list[_Judged] = []

    def figures() -> Regress:
        make_s = statistics.median(makes_s)
        verdict_s = statistics.median(each.wall_s for each in judged)
        alarms = tuple(each.alarm for each in judged if each.alarm)
        return Regress(
            kernel.release,
            part.modules[0],
            judged[-1].cases,
            question.seeds,
            round(2 * make_s, 1),
            round(verdict_s, 1),
            round(verdict_s / (2 * make_s), 2),
            len(judged),
            len(alarms),
            alarms,
            sum(each.unconfirmed for each in judged),
            bands,
        )

    try:
        for variant in noise.variants(changes):
            judged.append(_judged(session, question, part, stock, variant))
            verdict = judged[-1].alarm or f"{variant}: {SAME}"
            session.say(f"{len(judged)} of {changes}: {verdict}")
    except KeyboardInterrupt as stop:
        if not judged:
            raise
        raise Stopped(figures()) from stop
    return figures()


@dataclass(frozen=True)
class _Judged:
    """What was said of one change: `alarm` is empty when it was "same"."""

    wall_s: float
    cases: int
    alarm: str
    unconfirmed: bool


def _judged(
    session: Session, question: RegressRequest, part: Part, stock: Path, variant: noise.Variant
) -> _Judged:
    asked = replace(question, results=question.results / str(variant).replace(" ", "-"))
    with session.ledger.scratch_folder("null") as tree:
        copied(stock, [part], tree)
        variant.apply(tree / part.folder, part)
        _unlike_any_before(tree / part.folder / part.first)
        began = time.monotonic()
        judgement = judge(session, asked, Tree(tree))
        wall_s = time.monotonic() - began
    found = judgement.comparison
    why = [change.text for change in found.changes] or judgement.notes
    return _Judged(
        wall_s,
        len({figure.case for figure in found.figures}),
        "" if found.verdict == SAME else f"{variant}: {found.verdict}: {'; '.join(why)}",
        any(note.startswith(noise.NOT_COUNTED) for note in judgement.notes),
    )


def _make(session: Session, kernel: Kernel, stock: Path, part: Part) -> float:
    """How long a clean make of the part takes, in seconds."""
    with session.ledger.scratch_folder("null") as tree:
        copied(stock, [part], tree)
        _unlike_any_before(tree / part.folder / part.first)
        began = time.monotonic()
        modules_with_lines(session, kernel, tree, [part], lines=False, clean=True)
        return time.monotonic() - began


def _unlike_any_before(file: Path) -> None:
    """A word among the module's own facts, so that neither its build nor its answers are in the cache."""
    file.write_text(f'{file.read_text()}\nMODULE_INFO(odp_harness, "{secrets.token_hex(4)}");\n')
