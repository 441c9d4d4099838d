"""Run plans."""

from __future__ import annotations

import argparse
import itertools
import os
from pathlib import Path

import pytest

from harness.cli.common import (
    JOBS,
    err,
    goes_on,
    open_session,
    out,
    results_options,
)
from harness.device.catalogue import find
from harness.errors import EXIT_INTERRUPTED, SetupError
from harness.kernel.local_tree import (
    distinct,
    named,
)
from harness.kernel.packages import SERIES
from harness.plan.checkout import find_folder, plan_files
from harness.plan.options import OPTIONS, RUN_OPTIONS
from harness.plan.plan import load
from harness.plan.progress import Listing, Progress
from harness.plan.pytest_args import (
    RunRequest,
    check_expression,
)
from harness.plan.results_dir import default_results
from harness.results.record import read_run
from harness.results.reports import write_reports
from harness.results.terminal import open_view


def options(parser: argparse.ArgumentParser) -> None:
    """Add the options of the verb."""
    parser.add_argument(
        "plans", nargs="*", type=Path, help="plan files or folders (default: testplans/ of the checkout)"
    )
    for option in RUN_OPTIONS:
        option.add(parser.add_argument)
    results_options(parser)
    parser.add_argument("-k", metavar="EXPR", help="only cases whose name matches (as pytest -k)")
    parser.add_argument("-x", action="store_true", help="stop at the first failure")
    jobs = os.cpu_count() or 1
    parser.add_argument("-j", "--jobs", type=int, default=jobs, help=JOBS)
    parser.add_argument("--list", action="store_true", help="print the cases and run none")


def act(arguments: argparse.Namespace) -> int:
    """Run the chosen cases, write records and reports; return the exit status of the verdict."""
    plans = arguments.plans or [find_folder("testplans", None)]
    for file in plan_files(plans):
        load(file)
    _check(arguments)
    if arguments.list:
        return _list(arguments, plans)
    directory = arguments.resume or arguments.results or default_results()
    with open_view(out) as view:
        status = pytest.main(
            _pytest_arguments(arguments, plans, directory), plugins=[Progress(view, directory)]
        )
        if status == pytest.ExitCode.USAGE_ERROR:
            return 2
        nothing = status == pytest.ExitCode.NO_TESTS_COLLECTED and not arguments.resume
        if nothing or not (directory / "records").is_dir():
            raise _nothing("executed")
        reports = write_reports(directory)
        run = read_run(directory)
        view.summary(run, reports["report.html"])
    if run.index.interrupted:
        err.print(goes_on(directory), markup=False)
        return EXIT_INTERRUPTED
    return run.status


def _check(arguments: argparse.Namespace) -> None:
    """Validate --kernel, --device and -k early; only exact releases query the archive."""
    for device in arguments.device:
        find(device)
    distinct(arguments.kernel)
    releases = [name for name in arguments.kernel if name not in (*SERIES, "all") and named(name) is None]
    if releases:
        with open_session(arguments) as session:
            for name in releases:
                session.kernels.check(name)
    check_expression(arguments.k or "")


def _pytest_arguments(arguments: argparse.Namespace, plans: list[Path], directory: Path) -> list[str]:
    values = {option.key: getattr(arguments, option.key) for option in OPTIONS}
    return RunRequest(
        plans,
        directory,
        values={**values, "results": directory},
        flags=["-x"] if arguments.x else [],
        expression=arguments.k or "",
        jobs=arguments.jobs,
    ).arguments()


def _list(arguments: argparse.Namespace, plans: list[Path]) -> int:
    listing = Listing()
    argv = [*_pytest_arguments(arguments, plans, default_results()), "--collect-only", "-n0"]
    if pytest.main(argv, plugins=[listing]) == pytest.ExitCode.USAGE_ERROR:
        return 2
    if not listing.cases:
        raise _nothing("listed")
    for plan, cases in itertools.groupby(listing.cases, lambda planned: planned.plan):
        out.print(f"{plan.path}: {plan.title}", markup=False)
        for planned in cases:
            out.print(f"  {planned.case.id}", markup=False)
    return 0


def _nothing(done: str) -> SetupError:
    return SetupError(f"no case was {done}", ["none matches the given -k, --kernel and --device"])
