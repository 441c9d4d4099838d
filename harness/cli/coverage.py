"""Measure the line coverage of the modules under test."""

from __future__ import annotations

import argparse
import json
import os
import sys
from pathlib import Path

from rich.table import Table

from harness.campaign import coverage, coverage_html
from harness.campaign.coverage import Coverage
from harness.campaign.question import RegressRequest
from harness.cli.common import (
    JOBS,
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
    """Add the module, the plans, and the form of the output."""
    parser.add_argument("plans", type=Path, nargs="*", metavar="PLAN", help="default: those of page faults")
    names = [module for part in PARTS for module in part.every]
    parser.add_argument("--module", choices=names, default=names[0], help=f"default: {names[0]}")
    parser.add_argument("--kernel", default="newest", metavar="KERNEL", help=KERNEL)
    parser.add_argument("-k", metavar="EXPR", default="", help="only cases whose name matches (as pytest -k)")
    parser.add_argument(
        "--cut", type=int, default=0, metavar="N", help="at most N cases of each plan and device"
    )
    parser.add_argument("--file", metavar="NAME", help="list the functions of this source file, as odp.c")
    parser.add_argument("--lcov", type=Path, metavar="FILE", help="write a tracefile for genhtml")
    parser.add_argument(
        "--html", type=Path, metavar="FILE", help="write the source with executed lines marked"
    )
    results_options(parser)
    parser.add_argument("-j", "--jobs", type=int, default=os.cpu_count() or 1, help=JOBS)
    parser.add_argument("--json", action="store_true", help=JSON)


def act(arguments: argparse.Namespace) -> int:
    """Exit with status 0; 3 when no case ran."""
    (part,) = (part for part in PARTS if arguments.module in part.every)
    plans = arguments.plans or fault_plans()
    results = resumed_results(arguments)
    request = RegressRequest(
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
        measured = coverage.measure(session, request, kernel, stock, [part], "coverage")
        if arguments.module not in measured.tables:
            raise UsageError(f"{kernel.release} has no module {arguments.module}")
        if arguments.html:
            page = coverage_html.coverage(measured, arguments.module, stock / part.folder, kernel.release)
            write(arguments.html, page)
    if arguments.file and arguments.file not in measured.tables[arguments.module].code:
        raise UsageError(f"{arguments.module} has no file {arguments.file}")
    if arguments.lcov:
        write(arguments.lcov, coverage.lcov(measured, [part]))
    if arguments.json:
        sys.stdout.write(json.dumps(_plain(measured, arguments.module)) + "\n")
    else:
        _show(measured, arguments.module, part, arguments.file)
        out.print(f"records: {results}", markup=False)
    return 0 if measured.cases else 3


def _show(measured: Coverage, module: str, part: Part, file: str | None) -> None:
    title = f"{module}: lines executed by {len(measured.cases)} cases"
    table = Table("file", "function", "executed", "lines", "", title=title)
    listed = file or part.first
    for name, executed, code in measured.files(module):
        table.add_row(name, "", str(executed), str(code), _share(executed, code))
    table.add_section()
    for name, function, executed, code in measured.functions(module):
        if name == listed:
            table.add_row(name, function, str(executed), str(code), _share(executed, code))
    out.print(table)


def _share(executed: int, code: int) -> str:
    return f"{100 * executed // code} %" if code else ""


def _plain(measured: Coverage, module: str) -> dict[str, object]:
    files = [
        {"file": name, "executed": executed, "lines": code} for name, executed, code in measured.files(module)
    ]
    functions = [
        {"file": name, "function": function, "executed": executed, "lines": code}
        for name, function, executed, code in measured.functions(module)
    ]
    lines = {name: sorted(each) for name, each in measured.executed(module).items() if coverage.own(name)}
    return {
        "module": module,
        "cases": sorted(measured.cases),
        "files": files,
        "functions": functions,
        "executed_lines": lines,
    }
