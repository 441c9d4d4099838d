"""Is this kernel patch worse? The modules that it touches are built with and without it, and run the same plans.

Both sides go on from the same saved boot; only the parcel with the modules differs. Base and patched are built
by the same compiler from the same source, so that what differs is the patch.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

from harness.campaign import coverage, noise
from harness.campaign.change import (
    Subject,
    Tree,
)
from harness.campaign.compare import JUDGED, LEAST, Comparison, with_more
from harness.campaign.coverage import Coverage, own
from harness.campaign.diff_coverage import (
    Hunk,
    pieces,
)
from harness.campaign.interleave import (
    interleaved,
    not_run,
)
from harness.campaign.no_difference import measured
from harness.campaign.outcomes import BETTER, CANNOT_TELL, SAME, WORSE, Change
from harness.campaign.runs import SIDES, RegressRequest, modules_with_lines
from harness.campaign.statistics import MIN_RUNS
from harness.campaign.tree_diff import (
    TreeDiff,
    differing,
)
from harness.kernel import line_tables
from harness.kernel.packages import Kernel
from harness.kernel.source import source
from harness.kernel.subsystems import (
    FOLDERS,
    HEADERS,
    Part,
)
from harness.plan.checkout import plan_files
from harness.plan.session import Session

_MAX_UNREACHED = 10


@dataclass(frozen=True)
class Judgement:
    """The answer: which modules were rebuilt, what GNU patch and the compiler said, and the comparison.

    `identity` is git's patch-id, or the commit of a tree; `diffs` are the patches' own words (a tree has none), and
    `pieces` is what they change in the source that is built.
    """

    kernel: str
    compiler: str
    patches: tuple[str, ...]
    identity: str
    modules: tuple[str, ...]
    notes: tuple[str, ...]
    comparison: Comparison
    diffs: tuple[str, ...] = ()
    pieces: tuple[Hunk, ...] = ()


def judge(
    session: Session, question: RegressRequest, subject: Subject, base: Tree | None = None
) -> Judgement:
    """Answer a question: against the distribution's source, or what a kernel tree `base` has of it.

    Errors of the patch (does not apply, does not build) are raised, with the place.
    """
    kernel = session.kernel(question.kernel)
    stock = source(kernel, session.archive)
    if base is None:
        return _judge(session, question, subject, kernel, stock)
    with session.ledger.scratch_folder("base") as tree:
        # What the user's tree lacks of these parts is the distribution's.
        shutil.copytree(stock, tree, dirs_exist_ok=True)
        reached, _ = base.reach(stock)
        base.lay(stock, reached, tree, session.host)
        return _judge(session, question, subject, kernel, tree)


def _judge(
    session: Session, question: RegressRequest, subject: Subject, kernel: Kernel, stock: Path
) -> Judgement:
    identity = subject.identity(session.host)
    parts, outside = subject.reach(stock)
    notes = [f"not tested: {path}" for path in outside]
    with session.ledger.scratch_folder("patched") as tree:
        notes += subject.lay(stock, parts, tree, session.host) if parts else ()
        changed = tuple(differing(stock, tree, parts)) if parts else ()
        if not changed:
            nothing = _untouched(question, subject, parts)
            told = (kernel.release, "", subject.names, identity, (), tuple(notes))
            return Judgement(*told, nothing, subject.diffs)
        session.say(
            f"building {', '.join(name for part in parts for name in part.modules)} with and without it"
        )
        # With their line tables, which coverage needs: each is compiled once.
        base, compiler, tables = modules_with_lines(session, kernel, stock, parts)
        patched, _, more = modules_with_lines(session, kernel, tree, parts)
        names = tuple(PurePosixPath(place).stem for place in patched)
        others = _of_others(changed, (*tables.items(), *more.items()))
        notes += [f"not tested: {path} is built into no module that is replaced here" for path in others]
        if len(others) == len(changed):
            found, reached = _untouched(question, subject, parts), None
        else:
            notes += _unlike_the_rest(changed)
            if all(base[place].read_bytes() == path.read_bytes() for place, path in patched.items()):
                notes.append("the modules are to the last byte what they are without it")
            sides = _Sides(kernel, stock, tree, base, patched, tables, more)
            found, reached, said = _compared(session, question, sides, parts, coverage.touched(changed))
            notes += said
    all_notes = tuple(notes)
    facts = (kernel.release, compiler, subject.names, identity)
    return Judgement(*facts, names, all_notes, found, subject.diffs, pieces(changed, reached))


@dataclass(frozen=True)
class _Sides:
    """Two trees, the modules that were built of them for a kernel, and these modules' line tables."""

    kernel: Kernel
    stock: Path
    tree: Path
    base: Mapping[str, Path]
    patched: Mapping[str, Path]
    stock_tables: Mapping[str, Path]
    tables: Mapping[str, Path]


def _compared(
    session: Session, question: RegressRequest, sides: _Sides, parts: Sequence[Part], what: coverage.Touched
) -> tuple[Comparison, Coverage | None, list[str]]:
    """Run the cases on both sides: what differs, what of the changed side ran, if that was asked, and notes."""
    kernel = sides.kernel
    question, notes = _narrowed(session, question, kernel, sides.stock, parts, what)
    found, before, after, said = interleaved(session, question, kernel, sides.base, sides.patched, parts)
    notes += said
    lacking = not_run(question, before, after)
    found = with_more(found, lacking)
    if question.seeds < MIN_RUNS and any(figure.exact for figure in found.figures):
        few = (
            f"{question.seeds} runs a case tell only of the shortest way through a stage: --seeds {MIN_RUNS}"
        )
        notes.append(few)
    reached = None
    if not any(change.outcome for change in found.changes):
        reached, untested = _reached(session, question, sides, parts, what)
        notes += untested
    if measured(found.figures):
        bands = noise.bands(session, question, kernel, sides.stock, parts, before)
        trees = (sides.stock, sides.tree)
        found, more = noise.judged(session, question, kernel, trees, parts, before, after, bands)
        found = with_more(found, lacking)
        notes += [*more, band_said(found)]
    elif any(figure.exact for figure in found.figures):
        notes.append("no figure in instructions moved at all: no null band was needed")
    return found, reached, notes


def _reached(
    session: Session, question: RegressRequest, sides: _Sides, parts: Sequence[Part], what: coverage.Touched
) -> tuple[Coverage | None, list[str]]:
    """What of the changed side ran, if lines of it are new; and which lines that are new, or gone, no case ran."""
    reached, notes = None, []
    both = (
        (SIDES[0], sides.stock, sides.stock_tables, what.gone, ", which it removes"),
        (SIDES[1], sides.tree, sides.tables, what.new, ""),
    )
    for name, tree, tables, wanted, word in both:
        if any(wanted.values()):
            reached = (
                coverage.measure(session, question, sides.kernel, tree, parts, f"coverage-{name}")
                if question.detect
                else coverage.of_run(question.results / name, tree, parts, tables)
            )
            notes += [line + word for line in _unreached(reached, wanted)]
    return (reached if any(what.new.values()) else None), notes


def band_said(found: Comparison) -> str:
    """How far changes that change nothing move what was compared in instructions."""
    widths: dict[str, float] = {}
    for figure in found.figures:
        if figure.exact and (figure.stage.endswith(LEAST) or figure.stage in JUDGED):
            widths[figure.stage] = max(widths.get(figure.stage, 0.0), figure.band)
    told = ", ".join(f"{stage} {width:.0f}" for stage, width in sorted(widths.items()))
    return f"changes that change nothing move, in instructions, by up to: {told}"


def _of_others(changed: Sequence[TreeDiff], tables: Iterable[tuple[str, Path]]) -> list[str]:
    """Of the changed files the sources that are in none of the modules whose line tables these are, by their names."""
    built = {f"{FOLDERS[module]}/{name}" for module, table in tables for name in line_tables.files(table)}
    return [path for path in (str(file.path) for file in changed) if own(path) and path not in built]


def _unlike_the_rest(changed: Sequence[TreeDiff]) -> list[str]:
    """A word on headers: modules that nobody rebuilds know them as they were."""
    headers = [str(file.path) for file in changed if str(file.path).startswith(HEADERS)]
    if not headers:
        return []
    rest = "mlx5_core, ib_cm and the rest of the kernel keep them as they were: beware of changed structures"
    return [f"of {', '.join(headers)}: {rest}"]


def _untouched(question: RegressRequest, subject: Subject, parts: Sequence[Part]) -> Comparison:
    """What is said where no source of ours changed. A tree is whole: it is as good as what it equals."""
    if isinstance(subject, Tree) and not parts:
        return Comparison(SAME, ())
    nothing = Change(CANNOT_TELL, question.name, "it touches nothing that is tested here")
    return Comparison(CANNOT_TELL, (nothing,))


def _narrowed(
    session: Session,
    question: RegressRequest,
    kernel: Kernel,
    stock: Path,
    parts: Sequence[Part],
    what: coverage.Touched,
) -> tuple[RegressRequest, list[str]]:
    """The question with the plans of which a case reaches what is touched; all of them where none does, or if asked:
    then those that reach it come first.

    What stock modules reach is kept by content, so it is asked once.
    """
    plans = plan_files(question.plans)
    if len(plans) == 1 or not what.old:
        return question, []
    session.say("which plans reach what is touched")
    first = replace(question, cut=1)
    stock_reached = coverage.measure(session, first, kernel, stock, parts, "reach")
    names = coverage.reaching(stock_reached, what.old)
    wanted = [path for path in plans if path.stem in names]
    # What a macro or a structure of a header reaches, no line table says.
    unsure = any(
        not coverage.reaching(stock_reached, {path: what.old[path]}) for path in what.old if not own(path)
    )
    if not question.cut or not wanted or unsure:
        rest = [path for path in plans if path not in wanted]
        return replace(question, plans=[*wanted, *rest]), []
    ran = {case.split("/")[0] for case in stock_reached.cases}
    said = f"run: {len(wanted)} of {len(ran)} plans, those that reach what is touched (--all: every one)"
    return replace(question, plans=wanted), [said] if len(wanted) < len(ran) else []


def _unreached(reached: Coverage, wanted: Mapping[str, set[int]]) -> Iterator[str]:
    """What of the touched lines no case ran."""
    missing = coverage.unreached(reached, wanted)
    for path, first, last in missing[:_MAX_UNREACHED]:
        file = path if path.startswith(HEADERS) else PurePosixPath(path).name
        yield f"not tested: no case ran {file}:{first}" + (f"-{last}" if last > first else "")
    if len(missing) > _MAX_UNREACHED:
        yield f"not tested: and {len(missing) - _MAX_UNREACHED} more places that no case ran"


def is_fix(found: Comparison) -> tuple[str, str]:
    """BETTER if something that failed no longer does, nothing still fails, and nothing ends worse; else WORSE, or
    CANNOT_TELL; and why. What it costs is not asked: a fix may.
    """
    ends = [change for change in found.changes if change.outcome]
    for verdict in (WORSE, CANNOT_TELL):
        for change in ends:
            if change.verdict == verdict:
                return verdict, f"{change.case}: {change.text}"
    if found.never_well:
        return WORSE, f"{found.never_well[0]} fails with the fix, too"
    if not ends:
        return WORSE, "nothing fails without the fix: the plan does not show what it mends"
    return BETTER, f"{ends[0].case}: {ends[0].text}"
