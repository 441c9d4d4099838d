"""From a patch to a verdict."""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import sys
from pathlib import Path

from harness.campaign.regress import judge
from harness.campaign.runs import Question
from harness.cli.compare import STATUS, show
from harness.cli.screen import JSON, open_session, out
from harness.errors import UsageError
from harness.plan import plugin
from harness.plan.checkout import find_folder

TEXT = "Is this kernel patch worse? Builds the modules that it touches with and without it, and runs plans on both."


def options(parser: argparse.ArgumentParser) -> None:
    """The patch, and how much is run."""
    given = "a diff, a message, an mbox of a series, a folder of patches or a quilt series"
    parser.add_argument("--patch", type=Path, required=True, help=given)
    parser.add_argument(
        "--kernel", default="newest", metavar="SERIES", help="the kernel that the patch is for"
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
    parser.add_argument("--results", type=Path, metavar="DIR", help="default: odp-results/TIME")
    parser.add_argument("-j", "--jobs", type=int, default=os.cpu_count() or 1, help="cases at the same time")
    parser.add_argument("--json", action="store_true", help=JSON)


def act(arguments: argparse.Namespace) -> int:
    """Exit status 0 same or better, 1 worse, 3 cannot tell."""
    results = arguments.results or plugin.default_results()
    if results.exists() and any(results.iterdir()):
        raise UsageError(f"{results} is not empty", hint="another --results")
    plans = arguments.plans or sorted(find_folder("testplans", None).glob("odp-*.toml"))
    question = Question(
        arguments.patch,
        arguments.kernel,
        plans,
        results,
        arguments.seeds,
        0 if arguments.all else 1,
        arguments.jobs,
        arguments.k,
    )
    with open_session(arguments) as session:
        found = judge(session, question)
    if arguments.json:
        sys.stdout.write(json.dumps(dataclasses.asdict(found)) + "\n")
    else:
        for name in found.patches:
            out.print(f"patch: {name}", markup=False)
        out.print(
            f"kernel {found.kernel}, rebuilt: {', '.join(found.modules) or 'nothing'} ({found.compiler})",
            markup=False,
        )
        for note in found.notes:
            out.print(note, markup=False)
        show(found.comparison)
        out.print(f"records: {results}", markup=False)
    return STATUS.get(found.comparison.verdict, 0)
