"""Is this kernel patch worse? The modules that it touches are built with and without it, and run the same plans.

Both sides go on from the same saved boot; only the parcel with the modules differs. Base and patched are built
by the same compiler from the same source, so that what differs is the patch.
"""

from __future__ import annotations

from dataclasses import dataclass

from harness.campaign import null
from harness.campaign.compare import CANNOT_TELL, Change, Comparison, compare
from harness.campaign.runs import Question, answers, copied, modules
from harness.kernel import patches
from harness.kernel.parts import touched
from harness.kernel.source import source
from harness.plan.session import Session


@dataclass(frozen=True)
class Judgement:
    """The answer: which modules were rebuilt, what GNU patch and the compiler said, and the comparison."""

    kernel: str
    compiler: str
    patches: tuple[str, ...]
    modules: tuple[str, ...]
    notes: tuple[str, ...]
    comparison: Comparison


def judge(session: Session, question: Question) -> Judgement:
    """Answer a question. Errors of the patch (does not apply, does not build) are raised, with the place."""
    series = patches.read(question.patch)
    kernel = session.kernel(question.kernel)
    stock = source(kernel, session.archive)
    names = tuple(patch.name for patch in series)
    parts, outside = touched(file for patch in series for file in patch.files)
    notes = [f"not tested: {path}" for path in outside]
    if not parts:
        nothing = Change(CANNOT_TELL, question.patch.name, "the patch touches nothing that is tested here")
        found = Comparison(CANNOT_TELL, (nothing,), (), ())
        return Judgement(kernel.release, "", names, (), tuple(notes), found)
    with session.ledger.scratch_folder("patched") as tree:
        copied(stock, parts, tree)
        applied = patches.apply(series, tree, session.host)
        notes += applied.notes
        session.say(
            f"building {', '.join(m for part in parts for m in part.modules)} with and without the patch"
        )
        base, compiler = modules(session, kernel, stock, parts)
        patched, _ = modules(session, kernel, tree, parts)
        before = answers(session, question, kernel, base, parts, "base")
        after = answers(session, question, kernel, patched, parts, "patched")
        found = compare(before, after)
        if any(figure.exact and figure.change for figure in found.figures):
            found = compare(before, after, null.bands(session, question, kernel, stock, parts, before))
    names_built = tuple(module for part in parts for module in part.modules)
    return Judgement(kernel.release, compiler, names, names_built, tuple(notes), found)
