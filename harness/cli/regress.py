"""From a patch to a verdict."""

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
    Patched,
    Subject,
    Tree,
    before,
)
from harness.campaign.outcomes import BETTER, CANNOT_TELL, SAME, WORSE
from harness.campaign.regress import Judgement, is_fix, judge
from harness.campaign.runs import RegressRequest
from harness.cli.common import (
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

# For `git bisect run`: 125 says that a commit cannot be judged, anything from 128 on ends the search.
BISECT = {SAME: 0, BETTER: 0, WORSE: 1, CANNOT_TELL: 125}
BISECT_USAGE, BISECT_SKIP = 128, 125
PAGE = "verdict.html"
FIX = {BETTER: "a fix", WORSE: "not shown to be a fix", CANNOT_TELL: "cannot tell whether it is a fix"}


def options(parser: argparse.ArgumentParser) -> None:
    """The patch, how much is run, and how it is said."""
    given = "a diff, a message, an mbox of a series, a folder of patches, a quilt series, or A..B of --tree"
    parser.add_argument("--patch", metavar="P", help=given)
    tree = "a kernel tree: what it has of our modules is judged against the distribution's source"
    parser.add_argument("--tree", type=Path, metavar="DIR", help=tree)
    kernel = f"what it runs in: {KERNEL} (default: of a range what --tree has built, else newest)"
    parser.add_argument("--kernel", metavar="KERNEL", help=kernel)
    base = (
        "what it is judged against: the source of a kernel, which it then also runs in, or of a tree of yours"
    )
    parser.add_argument(
        "--base", metavar="KERNEL|TREE", help=f"{base} (default: of that kernel, or what a range goes on)"
    )
    plans = "plan files or folders (default: those of page faults)"
    parser.add_argument("--plans", type=Path, nargs="+", default=[], help=plans)
    parser.add_argument("-k", metavar="EXPR", default="", help="only cases whose name matches (as pytest -k)")
    parser.add_argument(
        "--all", action="store_true", help="every case of a plan, not just one of each device"
    )
    parser.add_argument(
        "--seeds", type=int, default=16, metavar="N", help="runs of a case, each shifted (default 16)"
    )
    real = "judge latencies in real time, until a difference of so many percent would show (of instructions: without)"
    parser.add_argument("--real", type=float, metavar="PERCENT", help=real)
    results_options(parser)
    parser.add_argument("-j", "--jobs", type=int, default=os.cpu_count() or 1, help="cases at the same time")
    how = parser.add_mutually_exclusive_group()
    how.add_argument("--json", action="store_true", help=JSON)
    how.add_argument("--mail", action="store_true", help="plain text for a reply on a mailing list")
    how.add_argument(
        "--bisect",
        action="store_true",
        help="exit status for `git bisect run`: 0 good, 1 bad, 125 cannot tell, 128 usage",
    )
    fix = "it is a fix: PLAN must fail without it and pass with it"
    parser.add_argument("--expect-fix", type=Path, metavar="PLAN", help=fix)


def act(arguments: argparse.Namespace) -> int:
    """Exit status 0 same or better, 1 worse, 3 cannot tell; with --expect-fix 0 if it is one, 1 if not, 3."""
    if not arguments.bisect:
        return _judged(arguments, _question(arguments))
    asked = False
    try:
        question = _question(arguments)
        _given(arguments)
        _resolve(arguments, question)
        asked = True
        return _judged(arguments, question)
    except HarnessError as error:
        err.print(f"error: {error.render()}", markup=False)
        return BISECT_USAGE if isinstance(error, UsageError) and not asked else BISECT_SKIP
    except Exception:  # git takes Python's own status, 1, for a bad commit
        traceback.print_exc()
    return BISECT_SKIP


def usage_status(argv: Sequence[str], status: int) -> int:
    """What the process says of a command line that is none: git takes 2 for a bad commit."""
    return BISECT_USAGE if status and "--bisect" in argv else status


def _judged(arguments: argparse.Namespace, question: RegressRequest) -> int:
    with (
        resumable(question.results),
        open_session(arguments) as session,
        session.ledger.scratch_folder("range") as folder,
    ):
        base = _base_tree(arguments) or _before_range(arguments, session, folder)
        found = judge(session, question, _subject(arguments, session), base)
    verdict = found.comparison.verdict
    if arguments.mail:
        sys.stdout.write(mail.text(found, ["odp-harness", *_again(sys.argv[1:])], question.seeds))
    elif arguments.json:
        sys.stdout.write(json.dumps(dataclasses.asdict(found)) + "\n")
    else:
        _print(found, question)
    page = _page(found, question)
    err.print(f"side by side: {page}", markup=False)
    if arguments.expect_fix:
        verdict, why = is_fix(found.comparison)
        err.print(f"{FIX[verdict]}: {why}", markup=False)
        return BISECT[verdict] if arguments.bisect else STATUS.get(verdict, 0)
    if arguments.bisect:
        return BISECT[CANNOT_TELL if verdict == SAME and found.comparison.failing else verdict]
    return STATUS.get(verdict, 0)


def _page(found: Judgement, question: RegressRequest) -> Path:
    """Both sides beside each other, in the folder of results; and in the folders of each the reports of any run."""
    # Of a question in real time there is a folder for each turn.
    folders = [sorted(question.results.glob(f"{name}*/records")) for name in side_by_side_html.NAMES]
    runs = [[read_run(records.parent) for records in side] for side in folders]
    base, patched = (tuple(record for run in side for record in run.records) for side in runs)
    path = question.results / PAGE
    question.results.mkdir(parents=True, exist_ok=True)
    write(path, side_by_side_html.render(found.comparison, base, patched, found))
    for run in (run for side in runs for run in side if run.records):
        write_reports(run.directory)
    return path


def _again(argv: list[str]) -> list[str]:
    """The command line without what is ours alone: how it is told, and where results go."""
    kept = iter(argv)
    words = []
    for word in kept:
        if word in ("--results", "--resume"):
            next(kept, None)
        elif word not in ("--mail", "--json") and not word.startswith(("--results=", "--resume=")):
            words.append(word)
    return words


def _question(arguments: argparse.Namespace) -> RegressRequest:
    if not arguments.patch and not arguments.tree:
        raise UsageError("what is to be judged?", hint="--patch P, or --tree DIR")
    if arguments.seeds < 1:
        raise UsageError(f"--seeds {arguments.seeds}", hint="1 or more; 8 or more for all figures")
    if arguments.real is not None and not 0 < arguments.real <= 100:
        raise UsageError(
            f"--real {arguments.real:g}", hint="the difference that must show, in percent: --real 5"
        )
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
    wanted = RegressRequest(name, kernel, plans, results, arguments.seeds, cut, arguments.jobs, arguments.k)
    return dataclasses.replace(wanted, detect=(arguments.real or 0.0) / 100)


def _kernel(arguments: argparse.Namespace) -> str:
    if arguments.base and not _base_tree(arguments):
        return str(arguments.base)
    if arguments.kernel:
        return str(arguments.kernel)
    folder = arguments.tree or Path()
    own = _is_range(arguments.patch) and not arguments.base and is_built(folder)
    return str(folder.absolute()) if own else "newest"


def _given(arguments: argparse.Namespace) -> None:
    """UsageError for a patch, range or tree that no commit would mend: it is not there, or none."""
    base = _base_tree(arguments)
    if base is not None:
        base.check()
    if _is_range(arguments.patch):
        with open_session(arguments) as session:
            patches.check_range(arguments.tree or Path(), arguments.patch, session.host)
    elif arguments.patch:
        _patched(arguments)
    else:
        Tree(arguments.tree).check()


def _resolve(arguments: argparse.Namespace, question: RegressRequest) -> None:
    """UsageError if nobody has a kernel or an image of that name: of no commit it would be known."""
    with open_session(arguments) as session:
        session.kernels.check(question.kernel)
        session.spec()


def _base_tree(arguments: argparse.Namespace) -> Tree | None:
    return Tree(Path(arguments.base)) if arguments.base and Path(arguments.base).is_dir() else None


def _before_range(arguments: argparse.Namespace, session: Session, folder: Path) -> Tree | None:
    """Of a range of commits what it goes on, if nothing else is named."""
    if arguments.base or not _is_range(arguments.patch):
        return None
    return before(arguments.tree or Path(), arguments.patch, folder, session.host)


def _is_range(patch: str | None) -> bool:
    """A..B, A... or ..B of git's, and no path with .. in it."""
    return bool(patch and ".." in patch and ".." not in Path(patch).parts and not Path(patch).exists())


def _subject(arguments: argparse.Namespace, session: Session) -> Subject:
    patch, tree = arguments.patch, arguments.tree
    if _is_range(patch):
        return Patched(patches.read_range(tree or Path(), patch, session.host))
    return _patched(arguments) if patch else Tree(tree)


def _patched(arguments: argparse.Namespace) -> Patched:
    if arguments.tree:
        raise UsageError("--tree goes with a range of commits, or alone", hint="--patch A..B --tree DIR")
    return Patched(patches.read(Path(arguments.patch)))


def _print(found: Judgement, question: RegressRequest) -> None:
    for name in found.patches:
        out.print(f"patch: {name}", markup=False)
    rebuilt = ", ".join(found.modules) or "nothing"
    out.print(f"kernel {found.kernel}, rebuilt: {rebuilt} ({found.compiler})", markup=False)
    for note in found.notes:
        out.print(note, markup=False)
    for case in found.comparison.failing:
        out.print(f"fails with and without it: {case}", markup=False)
    for case in found.comparison.known:
        out.print(f"fails as known, with and without it: {case}", markup=False)
    show(found.comparison)
    out.print(f"records: {question.results}", markup=False)
