"""What a verdict on a patch costs against the compiler alone, and how often a change of nothing is called one."""

from __future__ import annotations

import secrets
import statistics
import time
from dataclasses import dataclass, replace
from pathlib import Path

from harness.bench.figures import Figures
from harness.campaign import null
from harness.campaign.compare import SAME
from harness.campaign.regress import judge
from harness.campaign.runs import Question, answers, copied, modules, modules_with_lines
from harness.campaign.subject import Tree
from harness.kernel.packages import Kernel
from harness.kernel.parts import Part
from harness.kernel.source import source
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


def measure(session: Session, question: Question, part: Part, changes: int) -> Regress:
    """Judge `changes` changes that change nothing, each built and prepared anew. `question.results` is filled."""
    kernel = session.kernel(question.kernel)
    stock = source(kernel, session.archive)
    base, _ = modules(session, kernel, stock, [part])
    before = answers(session, question, kernel, base, [part], "base")
    bands = null.bands(session, question, kernel, stock, [part], before)
    alarms: list[str] = []
    verdicts_s: list[float] = []
    makes_s = [_make(session, kernel, stock, part) for _ in range(MAKES)]
    cases = unconfirmed = 0
    for variant in null.variants(changes):
        asked = replace(question, results=question.results / str(variant).replace(" ", "-"))
        with session.ledger.scratch_folder("null") as tree:
            copied(stock, [part], tree)
            variant.apply(tree / part.folder, part)
            _unlike_any_before(tree / part.folder / part.first)
            began = time.monotonic()
            judgement = judge(session, asked, Tree(tree))
        verdicts_s.append(time.monotonic() - began)
        found = judgement.comparison
        unconfirmed += any(note.startswith(null.NOT_COUNTED) for note in judgement.notes)
        cases = len({figure.case for figure in found.figures})
        if found.verdict != SAME:
            alarms.append(f"{variant}: {found.verdict}: {found.changes[0].text}")
        session.say(f"{len(verdicts_s)} of {changes}: {variant}: {found.verdict}")
    make_s, verdict_s = statistics.median(makes_s), statistics.median(verdicts_s)
    return Regress(
        kernel.release,
        part.modules[0],
        cases,
        question.seeds,
        round(2 * make_s, 1),
        round(verdict_s, 1),
        round(verdict_s / (2 * make_s), 2),
        changes,
        len(alarms),
        tuple(alarms),
        unconfirmed,
        bands,
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
