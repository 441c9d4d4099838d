"""Test a kernel patch against its baseline."""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path

from harness.campaign import mail, side_by_side_html
from harness.campaign.change import (
    KernelTree,
    PatchSeries,
    SourceChange,
    merge_base,
)
from harness.campaign.no_difference import needs_bands
from harness.campaign.outcomes import IMPROVEMENT, INCONCLUSIVE, NO_DIFFERENCE, REGRESSION
from harness.campaign.question import RegressRequest
from harness.campaign.regress import RegressResult, is_fix, regress
from harness.cli.common import (
    JOBS,
    JSON,
    KERNEL,
    err,
    open_session,
    out,
    results_options,
    resumable,
    resumed_results,
    write,
)
from harness.cli.compare import STATUS, show
from harness.errors import HarnessError, UsageError
from harness.kernel import patches
from harness.kernel.local_tree import is_built
from harness.plan.checkout import fault_plans, plan_files
from harness.plan.plan import load
from harness.plan.pytest_args import check_expression
from harness.plan.session import Session
from harness.results.record import read_run
from harness.results.reports import write_reports

# For `git bisect run`: 125 skips a commit that cannot be tested, 128 and up end the search.
BISECT = {NO_DIFFERENCE: 0, IMPROVEMENT: 0, REGRESSION: 1, INCONCLUSIVE: 125}
BISECT_USAGE, BISECT_SKIP = 128, 125
PAGE = "verdict.html"
FIX = {IMPROVEMENT: "fix confirmed", REGRESSION: "fix not confirmed", INCONCLUSIVE: "inconclusive"}


def options(parser: argparse.ArgumentParser) -> None:
    """Add the patch, the amount of runs, and the form of the output."""
    sources = "a diff, a message, an mbox of a series, a folder of patches, a quilt series, or A..B of --tree"
    parser.add_argument("--patch", metavar="P", help=sources)
    tree = "a kernel tree: its source of the tested modules is compared with the distribution's"
    parser.add_argument("--tree", type=Path, metavar="DIR", help=tree)
    kernel = f"kernel to run: {KERNEL} (default: the one built in --tree for a range, else newest)"
    parser.add_argument("--kernel", metavar="KERNEL", help=kernel)
    base = "baseline: the source of a kernel, which then is also the one to run, or of a kernel tree"
    parser.add_argument(
        "--base",
        metavar="KERNEL|TREE",
        help=f"{base} (default: that of --kernel; of a range of commits its merge base)",
    )
    plans = "plan files or folders (default: those of page faults)"
    parser.add_argument("--plans", type=Path, nargs="+", default=[], help=plans)
    parser.add_argument("-k", metavar="EXPR", default="", help="only cases whose name matches (as pytest -k)")
    parser.add_argument(
        "--all",
        action="store_true",
        help="every plan and every case, not just one case per device of plans that execute changed lines",
    )
    parser.add_argument(
        "--seeds", type=int, default=16, metavar="N", help="runs of a case, each shifted (default 16)"
    )
    real = "compare latencies in real time until an effect of PERCENT is detectable (default: count instructions)"
    parser.add_argument("--real", type=float, metavar="PERCENT", help=real)
    results_options(parser)
    parser.add_argument("-j", "--jobs", type=int, default=os.cpu_count() or 1, help=JOBS)
    how = parser.add_mutually_exclusive_group()
    how.add_argument("--json", action="store_true", help=JSON)
    how.add_argument("--mail", action="store_true", help="print plain text for a mailing list")
    how.add_argument(
        "--bisect",
        action="store_true",
        help="exit status for `git bisect run`: 0 good, 1 bad, 125 inconclusive, 128 usage",
    )
    fix = "the patch is a fix: PLAN must fail on the baseline and pass with the patch"
    parser.add_argument("--expect-fix", type=Path, metavar="PLAN", help=fix)


def act(arguments: argparse.Namespace) -> int:
    """Exit with status 0 for no difference or an improvement, 1 for a regression, 3 if inconclusive.

    With --expect-fix 0 for a confirmed fix, else 1 or 3.
    """
    if not arguments.bisect:
        return _judged(arguments, _question(arguments))
    checked = False
    try:
        question = _question(arguments)
        _check_inputs(arguments)
        _resolve(arguments, question)
        checked = True
        return _judged(arguments, question)
    except HarnessError as error:
        err.print(f"error: {error.render()}", markup=False)
        return BISECT_USAGE if isinstance(error, UsageError) and not checked else BISECT_SKIP
    except Exception:  # git takes Python's own status, 1, for a bad commit
        traceback.print_exc()
    return BISECT_SKIP


def usage_status(argv: Sequence[str], status: int) -> int:
    """Return the exit status for a wrong command line: git takes 2 for a bad commit."""
    return BISECT_USAGE if status and "--bisect" in argv else status


def _judged(arguments: argparse.Namespace, question: RegressRequest) -> int:
    with (
        resumable(question.results),
        open_session(arguments) as session,
        session.ledger.scratch_folder("range") as folder,
    ):
        base = _base_tree(arguments) or _before_range(arguments, session, folder)
        result = regress(session, question, _source_change(arguments, session), base)
    verdict = result.comparison.verdict
    if arguments.mail:
        sys.stdout.write(mail.text(result, ["odp-harness", *_reproduce(sys.argv[1:])], question.seeds))
    elif arguments.json:
        sys.stdout.write(json.dumps(dataclasses.asdict(result)) + "\n")
    else:
        _print(result, question)
    page = _page(result, question)
    err.print(f"side by side: {page}", markup=False)
    if arguments.expect_fix:
        verdict, why = is_fix(result.comparison)
        err.print(f"{FIX[verdict]}: {why}", markup=False)
        return BISECT[verdict] if arguments.bisect else STATUS.get(verdict, 0)
    if arguments.bisect:
        return BISECT[INCONCLUSIVE if verdict == NO_DIFFERENCE and result.comparison.failing else verdict]
    return STATUS.get(verdict, 0)


def _page(result: RegressResult, question: RegressRequest) -> Path:
    """Write both sides side by side into the folder of results, and into the folder of each run its reports."""
    # In real time there is a folder for each round.
    folders = [sorted(question.results.glob(f"{name}*/records")) for name in side_by_side_html.NAMES]
    runs = [[read_run(records.parent) for records in side] for side in folders]
    baseline, patched = (tuple(record for run in side for record in run.records) for side in runs)
    path = question.results / PAGE
    question.results.mkdir(parents=True, exist_ok=True)
    write(path, side_by_side_html.render(result.comparison, baseline, patched, result))
    for run in (run for side in runs for run in side if run.records):
        write_reports(run.directory)
    return path


def _reproduce(argv: list[str]) -> list[str]:
    """Return the command line without options that matter here only: the form of output, folders of results."""
    rest = iter(argv)
    words = []
    for word in rest:
        if word in ("--results", "--resume"):
            next(rest, None)
        elif word not in ("--mail", "--json") and not word.startswith(("--results=", "--resume=")):
            words.append(word)
    return words


def _question(arguments: argparse.Namespace) -> RegressRequest:
    if not arguments.patch and not arguments.tree:
        raise UsageError("no patch and no tree is named", hint="--patch P, or --tree DIR")
    if arguments.seeds < 1:
        raise UsageError(f"--seeds {arguments.seeds}", hint="1 or more; 8 or more for all metrics")
    if arguments.real is not None and not 0 < arguments.real <= 100:
        raise UsageError(f"--real {arguments.real:g}", hint="the effect to detect, in percent: --real 5")
    results = resumed_results(arguments)
    plans = arguments.plans or fault_plans()
    if arguments.expect_fix:
        plans = [arguments.expect_fix]
    plans = plan_files(plans)
    for file in plans:
        load(file)
    check_expression(arguments.k)
    name = str(arguments.patch or arguments.tree)
    cut = 0 if arguments.all or arguments.expect_fix else 1
    kernel = _kernel(arguments)
    request = RegressRequest(name, kernel, plans, results, arguments.seeds, cut, arguments.jobs, arguments.k)
    return dataclasses.replace(request, effect=(arguments.real or 0.0) / 100)


def _kernel(arguments: argparse.Namespace) -> str:
    if arguments.base and not _base_tree(arguments):
        return str(arguments.base)
    if arguments.kernel:
        return str(arguments.kernel)
    folder = arguments.tree or Path()
    own = _is_range(arguments.patch) and not arguments.base and is_built(folder)
    return str(folder.absolute()) if own else "newest"


def _check_inputs(arguments: argparse.Namespace) -> None:
    """Raise UsageError for a missing or malformed patch, range or tree: no commit could be tested."""
    base = _base_tree(arguments)
    if base is not None:
        base.check()
    if _is_range(arguments.patch):
        with open_session(arguments) as session:
            patches.check_range(arguments.tree or Path(), arguments.patch, session.host)
    elif arguments.patch:
        _patch_file(arguments)
    else:
        KernelTree(arguments.tree).check()


def _resolve(arguments: argparse.Namespace, question: RegressRequest) -> None:
    """Raise UsageError for an unknown kernel or image: no commit could be tested."""
    with open_session(arguments) as session:
        session.kernels.check(question.kernel)
        session.spec()


def _base_tree(arguments: argparse.Namespace) -> KernelTree | None:
    return KernelTree(Path(arguments.base)) if arguments.base and Path(arguments.base).is_dir() else None


def _before_range(arguments: argparse.Namespace, session: Session, folder: Path) -> KernelTree | None:
    """Default base of a commit range: its merge base."""
    if arguments.base or not _is_range(arguments.patch):
        return None
    return merge_base(arguments.tree or Path(), arguments.patch, folder, session.host)


def _is_range(patch: str | None) -> bool:
    """Distinguish A..B, A... or ..B from a path with .. in it."""
    return bool(patch and ".." in patch and ".." not in Path(patch).parts and not Path(patch).exists())


def _source_change(arguments: argparse.Namespace, session: Session) -> SourceChange:
    patch, tree = arguments.patch, arguments.tree
    if _is_range(patch):
        return PatchSeries(patches.read_range(tree or Path(), patch, session.host))
    return _patch_file(arguments) if patch else KernelTree(tree)


def _patch_file(arguments: argparse.Namespace) -> PatchSeries:
    if arguments.tree:
        raise UsageError("--tree goes with a range of commits, or alone", hint="--patch A..B --tree DIR")
    return PatchSeries(patches.read(Path(arguments.patch)))


def _print(result: RegressResult, question: RegressRequest) -> None:
    for name in result.patches:
        out.print(f"patch: {name}", markup=False)
    compiler = f" (built with {result.compiler})" if result.compiler else ""
    rebuilt = ", ".join(result.modules) or "no module"
    out.print(f"kernel: {result.kernel}, rebuilt: {rebuilt}{compiler}", markup=False)
    for heading, lines in (
        ("note", result.notes),
        ("not tested", result.not_tested),
        ("unconfirmed", result.unconfirmed),
        ("noise bands in instructions", _bands(result)),
    ):
        for line in lines:
            out.print(f"{heading}: {line}", markup=False)
    out.print(f"records: {question.results}", markup=False)
    show(result.comparison, banded=True)


def _bands(result: RegressResult) -> list[str]:
    widths = [f"{name} +/-{width:.0f}" for name, width in result.noise_bands.items()]
    return [", ".join(widths)] if widths and needs_bands(result.comparison.metrics) else []
