"""Test a kernel patch: build the modules it changes with and without it, run the same plans on both, and compare.

Both sides restore the same snapshot; only the payload disk with the modules differs. The same compiler builds both from
the same source, so the patch is the only difference.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath

from harness.campaign import coverage, noise, not_tested
from harness.campaign.builds import build_modules
from harness.campaign.change import (
    KernelTree,
    SourceChange,
)
from harness.campaign.compare import Comparison, by_case, environment_of, with_more
from harness.campaign.coverage import ChangedLines, Coverage, own
from harness.campaign.diff_coverage import (
    Hunk,
    hunks,
)
from harness.campaign.interleave import (
    BothRuns,
    Side,
    Sides,
    not_run,
    run_both,
)
from harness.campaign.metrics import MINIMUM, WHOLE
from harness.campaign.no_difference import needs_bands
from harness.campaign.outcomes import IMPROVEMENT, INCONCLUSIVE, NO_DIFFERENCE, REGRESSION, Difference
from harness.campaign.question import SIDES, RegressRequest
from harness.campaign.statistics import MIN_RUNS
from harness.campaign.tree_diff import (
    TreeDiff,
    differing,
)
from harness.kernel.packages import Kernel
from harness.kernel.source import source
from harness.kernel.subsystems import (
    Part,
)
from harness.plan.checkout import plan_files
from harness.plan.plan import load
from harness.plan.session import Session


@dataclass(frozen=True)
class RegressResult:
    """The result for a change: what was built and compared, with the verdict in `comparison`.

    `identity` is git's patch-id, or the commit of a tree. `cases` is the number of cases that ran. `not_tested` are
    files and lines that no case executes; `unconfirmed` are differences that more builds did not confirm. `noise_bands`
    are in instructions by metric, `titles` those of the plans by name. `diffs` are the patches as read (a tree has
    none), `hunks` what differs in the source that is built.
    """

    kernel: str
    compiler: str
    patches: tuple[str, ...]
    identity: str
    modules: tuple[str, ...]
    comparison: Comparison
    cases: int = 0
    notes: tuple[str, ...] = ()
    not_tested: tuple[str, ...] = ()
    unconfirmed: tuple[str, ...] = ()
    noise_bands: Mapping[str, float] = field(default_factory=dict)
    environment: Mapping[str, str] = field(default_factory=dict)
    titles: Mapping[str, str] = field(default_factory=dict)
    diffs: tuple[str, ...] = ()
    hunks: tuple[Hunk, ...] = ()


def regress(
    session: Session, request: RegressRequest, change: SourceChange, base: KernelTree | None = None
) -> RegressResult:
    """Compare a change with its baseline: the distribution's source, or what a kernel tree `base` has of it.

    Errors of the patch (does not apply, does not build) are raised with file and line.
    """
    kernel = session.kernel(request.kernel)
    stock = source(kernel, session.archive)
    if base is None:
        return _regress(session, request, change, kernel, stock)
    with session.ledger.scratch_folder("base") as tree:
        # What the user's tree lacks of these parts is the distribution's.
        shutil.copytree(stock, tree, dirs_exist_ok=True)
        parts, _ = base.parts(stock)
        base.write(stock, parts, tree, session.host)
        return _regress(session, request, change, kernel, tree)


def _regress(
    session: Session, request: RegressRequest, change: SourceChange, kernel: Kernel, stock: Path
) -> RegressResult:
    parts, outside = change.parts(stock)
    blank = RegressResult(
        kernel.release,
        "",
        change.names,
        change.identity(session.host),
        (),
        _nothing_changed(request, change, parts),
        not_tested=not_tested.outside(outside),
        diffs=change.diffs,
    )
    with session.ledger.scratch_folder("patched") as tree:
        written = change.write(stock, parts, tree, session.host) if parts else None
        if written:
            untested = (*blank.not_tested, *not_tested.outside(written.outside))
            blank = replace(blank, notes=written.notes, not_tested=untested)
        changed = tuple(differing(stock, tree, parts)) if parts else ()
        if not changed:
            return blank
        sides = _build(session, kernel, parts, stock, tree)
        built = sides.patched.built
        foreign = _in_no_module(changed, sides)
        result = replace(
            blank,
            compiler=sides.baseline.built.compiler,
            modules=tuple(PurePosixPath(place).stem for place in built.files),
            not_tested=(*blank.not_tested, *(f"{path}: in no module that is replaced" for path in foreign)),
            hunks=hunks(changed, None),
        )
        if len(foreign) == len(changed):
            return result
        notes = [*result.notes, *not_tested.header_note(changed)]
        stock_files = sides.baseline.built.files
        if all(stock_files[place].read_bytes() == path.read_bytes() for place, path in built.files.items()):
            notes.append("the patch does not change a byte of the modules")
        result = replace(result, notes=tuple(notes))
        return _run(session, request, sides, changed, result)


def _build(session: Session, kernel: Kernel, parts: Sequence[Part], stock: Path, tree: Path) -> Sides:
    """Build both sides, with the line tables that coverage needs: each file is compiled once."""
    names = ", ".join(name for part in parts for name in part.modules)
    session.say(f"building {names}: baseline and patched")
    baseline, patched = (Side(each, build_modules(session, kernel, each, parts)) for each in (stock, tree))
    return Sides(kernel, parts, baseline, patched)


def _run(
    session: Session,
    request: RegressRequest,
    sides: Sides,
    changed: Sequence[TreeDiff],
    result: RegressResult,
) -> RegressResult:
    """Run the cases on both sides and compare: fills in everything that needs a run."""
    lines = coverage.changed_lines(changed)
    request, narrowed = _narrow(session, request, sides, lines)
    runs = run_both(session, request, sides)
    lacking = not_run(request, runs.baseline, runs.patched)
    comparison = with_more(runs.comparison, lacking)
    notes = [*result.notes, *narrowed, *runs.notes, *_few_runs(request, comparison)]
    executed: Coverage | None = None
    not_executed: list[str] = []
    if not any(each.outcome for each in comparison.differences):
        executed, not_executed = _diff_coverage(session, request, sides, lines)
    unconfirmed: tuple[str, ...] = ()
    if needs_bands(comparison.metrics):
        confirmed = _confirm(session, request, sides, runs)
        comparison, unconfirmed = with_more(confirmed.comparison, lacking), confirmed.dismissed
    elif any(metric.exact for metric in comparison.metrics):
        notes.append("no metric in instructions moved: noise bands were not needed")
    return replace(
        result,
        comparison=comparison,
        cases=len(by_case((*runs.baseline, *runs.patched))),
        notes=tuple(notes),
        not_tested=(*result.not_tested, *not_executed),
        unconfirmed=unconfirmed,
        noise_bands=noise_bands(comparison),
        environment=environment_of((*runs.baseline, *runs.patched)),
        titles={path.stem: load(path).title for path in plan_files(request.plans)},
        hunks=hunks(changed, executed),
    )


def _confirm(session: Session, request: RegressRequest, sides: Sides, runs: BothRuns) -> noise.Confirmed:
    """Measure the noise bands and confirm what moved beyond them."""
    baseline = noise.Baseline(request, sides.kernel, sides.baseline.tree, sides.parts, runs.baseline)
    bands = noise.noise_bands(session, baseline)
    return noise.confirm(session, baseline, sides.patched.tree, runs.patched, bands)


def _few_runs(request: RegressRequest, comparison: Comparison) -> list[str]:
    if request.seeds >= MIN_RUNS or not any(metric.exact for metric in comparison.metrics):
        return []
    return [
        f"{request.seeds} runs a case: only the minimum of each stage is conclusive; "
        f"--seeds {MIN_RUNS} for medians and means too"
    ]


def _diff_coverage(
    session: Session, request: RegressRequest, sides: Sides, lines: ChangedLines
) -> tuple[Coverage | None, list[str]]:
    """Return the coverage of the patched side, if it has new lines; and which new or removed lines no case executes."""
    executed: Coverage | None = None
    not_executed: list[str] = []
    both = (
        (SIDES[0], sides.baseline, lines.removed, "removed lines"),
        (SIDES[1], sides.patched, lines.new, "lines"),
    )
    for name, side, changed, noun in both:
        if any(changed.values()):
            executed = (
                coverage.measure(session, request, sides.kernel, side.tree, sides.parts, f"coverage-{name}")
                if request.effect
                else coverage.of_run(request.results / name, side.tree, sides.parts, side.built.line_tables)
            )
            not_executed += not_tested.not_executed(executed, changed, noun)
    return (executed if any(lines.new.values()) else None), not_executed


def noise_bands(comparison: Comparison) -> dict[str, float]:
    """Return the noise bands of the metrics in instructions: minima of stages and whole latencies."""
    widths: dict[str, float] = {}
    for metric in comparison.metrics:
        if metric.exact and (metric.statistic == MINIMUM or metric.stage in WHOLE):
            widths[metric.name] = max(widths.get(metric.name, 0.0), metric.noise_band)
    return dict(sorted(widths.items()))


def _in_no_module(changed: Sequence[TreeDiff], sides: Sides) -> list[str]:
    """List the changed source files that are in none of the modules of either side."""
    tables = (*sides.baseline.built.line_tables.items(), *sides.patched.built.line_tables.items())
    return not_tested.in_no_module(changed, tables)


def _nothing_changed(request: RegressRequest, change: SourceChange, parts: Sequence[Part]) -> Comparison:
    """Return the comparison where no tested source changed. A tree equal to the distribution's makes no difference."""
    if isinstance(change, KernelTree) and not parts:
        return Comparison(NO_DIFFERENCE, ())
    nothing = Difference(INCONCLUSIVE, request.name, "it changes nothing that is tested here")
    return Comparison(INCONCLUSIVE, (nothing,))


def _narrow(
    session: Session, request: RegressRequest, sides: Sides, lines: ChangedLines
) -> tuple[RegressRequest, list[str]]:
    """Narrow to plans that execute touched lines; with --all keep every plan, those first.

    Every plan is kept, too, where none executes them, or a changed header hides what does. The coverage of the stock
    modules is cached.
    """
    plans = plan_files(request.plans)
    if len(plans) == 1 or not lines.old:
        return request, []
    session.say("finding the plans that execute the changed lines")
    first = replace(request, cut=1)
    stock = coverage.measure(session, first, sides.kernel, sides.baseline.tree, sides.parts, "reach")
    names = coverage.plans_executing(stock, lines.old)
    chosen = [path for path in plans if path.stem in names]
    # No line table has the users of a macro or a structure of a header.
    unsure = any(
        not coverage.plans_executing(stock, {path: lines.old[path]}) for path in lines.old if not own(path)
    )
    if not request.cut or not chosen or unsure:
        rest = [path for path in plans if path not in chosen]
        return replace(request, plans=[*chosen, *rest]), []
    ran = {case.split("/")[0] for case in stock.cases}
    note = f"ran {len(chosen)} of {len(ran)} plans: those that execute changed lines (--all: every plan)"
    return replace(request, plans=chosen), [note] if len(chosen) < len(ran) else []


def is_fix(comparison: Comparison) -> tuple[str, str]:
    """Return the verdict on a fix, and why.

    IMPROVEMENT if something that failed no longer does, nothing still fails and no case ends worse; else REGRESSION, or
    INCONCLUSIVE. Latency does not count: a fix may cost time.
    """
    ends = [each for each in comparison.differences if each.outcome]
    for verdict in (REGRESSION, INCONCLUSIVE):
        for each in ends:
            if each.verdict == verdict:
                return verdict, f"{each.case}: {each.text}"
    if comparison.failing_on_both:
        return REGRESSION, f"{comparison.failing_on_both[0]} fails with the fix, too"
    if not ends:
        return REGRESSION, "nothing fails without the fix: the plan does not show the bug"
    return IMPROVEMENT, f"{ends[0].case}: {ends[0].text}"
