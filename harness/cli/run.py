"""Plans to a verdict."""

from __future__ import annotations

import argparse
import itertools
import os
from pathlib import Path

import pytest

from harness.cli.common import (
    KERNEL,
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
from harness.store import parse_size

TEXT = "Run plans and print the verdict."


def options(parser: argparse.ArgumentParser) -> None:
    """Its options."""
    parser.add_argument(
        "plans", nargs="*", type=Path, help="plan files or folders (default: testplans/ of the checkout)"
    )
    parser.add_argument(
        "--kernel",
        action="append",
        default=[],
        metavar="KERNEL",
        help=f"{KERNEL} (default newest); `all`: the plans'",
    )
    parser.add_argument("--device", action="append", default=[], help="run on these devices only")
    parser.add_argument(
        "--time",
        choices=("exact", "real"),
        help="clock of the machines (default: the plan's, else the device's)",
    )
    paced = "machines with a card count instructions, and wait in real time"
    parser.add_argument("--paced", action="store_true", help=paced)
    parser.add_argument(
        "--twice", action="store_true", help="run each exact case twice; the answers must be equal"
    )
    parser.add_argument(
        "--cut",
        type=int,
        default=0,
        metavar="N",
        help="of each plan, kernel and device only N cases, far apart",
    )
    parser.add_argument(
        "--seeds", type=int, default=0, metavar="N", help="run each case N times, its start shifted by a seed"
    )
    parser.add_argument(
        "--parcel",
        type=Path,
        metavar="DIR",
        help="modules/NAME.ko there replaces the kernel's own, for each machine",
    )
    parser.add_argument("--no-skip", action="store_true", help="a missing need is a failure, not a skip")
    results_options(parser)
    parser.add_argument("-k", metavar="EXPR", help="only cases whose name matches (as pytest -k)")
    parser.add_argument("-x", action="store_true", help="stop at the first failure")
    jobs = os.cpu_count() or 1
    parser.add_argument(
        "-j", "--jobs", type=int, default=jobs, help="cases at the same time (default: one per CPU)"
    )
    parser.add_argument("--list", action="store_true", help="print the cases and run none")
    # An option of the plugin's that is for campaigns.
    parser.set_defaults(ruled_once=False)


def act(arguments: argparse.Namespace) -> int:
    """Run the chosen cases, write records and reports; the exit status is the verdict."""
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
    """UsageError for what nothing can be chosen by; the archive is asked about names that may be releases only."""
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
    limit = parse_size(arguments.cache_limit) if arguments.cache_limit else None
    names = ("cache", "mirror", "vm_images", "time", "image", "cut", "seeds", "parcel")
    values = {"cache_limit": limit, **{name: getattr(arguments, name) for name in names}}
    given = {"--paced": arguments.paced, "--twice": arguments.twice, "--no-skip": arguments.no_skip}
    flags = {**given, "-x": arguments.x, "--resume": arguments.resume}
    return RunRequest(
        plans,
        directory,
        arguments.kernel,
        arguments.device,
        values,
        [flag for flag, on in flags.items() if on],
        arguments.k or "",
        arguments.jobs,
    ).arguments()


def _list(arguments: argparse.Namespace, plans: list[Path]) -> int:
    listing = Listing()
    wanted = [*_pytest_arguments(arguments, plans, default_results()), "--collect-only", "-n0"]
    if pytest.main(wanted, plugins=[listing]) == pytest.ExitCode.USAGE_ERROR:
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
