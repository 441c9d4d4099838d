"""What our cases reach of the modules under test."""

from __future__ import annotations

import argparse
import json
import os
import sys
from pathlib import Path

from rich.table import Table

from harness.campaign import coverage, coverage_html
from harness.campaign.coverage import Coverage
from harness.campaign.runs import RegressRequest
from harness.cli.common import (
    JSON,
    KERNEL,
    open_session,
    out,
    results_options,
    resumable,
    resumed_results,
    write,
)
from harness.errors import UsageError
from harness.kernel.source import source
from harness.kernel.subsystems import (
    PARTS,
    Part,
)
from harness.plan.checkout import fault_plans


def options(parser: argparse.ArgumentParser) -> None:
    """Of what, by which plans, and how it is told."""
    parser.add_argument("plans", type=Path, nargs="*", metavar="PLAN", help="default: those of page faults")
    names = [module for part in PARTS for module in part.every]
    parser.add_argument("--module", choices=names, default=names[0], help=f"default: {names[0]}")
    parser.add_argument("--kernel", default="newest", metavar="KERNEL", help=KERNEL)
    parser.add_argument("-k", metavar="EXPR", default="", help="only cases whose name matches (as pytest -k)")
    parser.add_argument("--cut", type=int, default=0, metavar="N", help="of each plan and device N cases")
    parser.add_argument("--file", metavar="NAME", help="the functions of this source file, as odp.c")
    parser.add_argument("--lcov", type=Path, metavar="FILE", help="write a tracefile, as genhtml reads it")
    parser.add_argument("--html", type=Path, metavar="FILE", help="write the source with what ran marked")
    results_options(parser)
    parser.add_argument("-j", "--jobs", type=int, default=os.cpu_count() or 1, help="cases at the same time")
    parser.add_argument("--json", action="store_true", help=JSON)


def act(arguments: argparse.Namespace) -> int:
    """Exit status 0; 3 when no case ran."""
    (part,) = (part for part in PARTS if arguments.module in part.every)
    plans = arguments.plans or fault_plans()
    results = resumed_results(arguments)
    question = RegressRequest(
        arguments.module,
        arguments.kernel,
        plans,
        results,
        seeds=1,
        cut=arguments.cut,
        jobs=arguments.jobs,
        expression=arguments.k,
    )
    with resumable(results), open_session(arguments) as session:
        kernel = session.kernel(arguments.kernel)
        stock = source(kernel, session.archive)
        found = coverage.measure(session, question, kernel, stock, [part], "coverage")
        if arguments.module not in found.tables:
            raise UsageError(f"{kernel.release} has no module {arguments.module}")
        if arguments.html:
            page = coverage_html.coverage(found, arguments.module, stock / part.folder, kernel.release)
            write(arguments.html, page)
    if arguments.file and arguments.file not in found.tables[arguments.module].code:
        raise UsageError(f"{arguments.module} has no file {arguments.file}")
    if arguments.lcov:
        write(arguments.lcov, coverage.lcov(found, [part]))
    if arguments.json:
        sys.stdout.write(json.dumps(_plain(found, arguments.module)) + "\n")
    else:
        _show(found, arguments.module, part, arguments.file)
        out.print(f"records: {results}", markup=False)
    return 0 if found.cases else 3


def _show(found: Coverage, module: str, part: Part, file: str | None) -> None:
    title = f"{module}: lines that {len(found.cases)} cases ran"
    table = Table("file", "function", "ran", "lines", "", title=title)
    wanted = file or part.first
    for name, ran, code in found.files(module):
        table.add_row(name, "", str(ran), str(code), _share(ran, code))
    table.add_section()
    for name, function, ran, code in found.functions(module):
        if name == wanted:
            table.add_row(name, function, str(ran), str(code), _share(ran, code))
    out.print(table)


def _share(ran: int, code: int) -> str:
    return f"{100 * ran // code} %" if code else ""


def _plain(found: Coverage, module: str) -> dict[str, object]:
    files = [{"file": name, "ran": ran, "lines": code} for name, ran, code in found.files(module)]
    functions = [
        {"file": name, "function": function, "ran": ran, "lines": code}
        for name, function, ran, code in found.functions(module)
    ]
    reached = {name: sorted(each) for name, each in found.reached(module).items() if coverage.own(name)}
    return {
        "module": module,
        "cases": sorted(found.cases),
        "files": files,
        "functions": functions,
        "reached": reached,
    }
