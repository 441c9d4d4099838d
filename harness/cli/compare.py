"""Two stored runs against each other."""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
from pathlib import Path

from rich.table import Table

from harness.campaign import side_by_side_html
from harness.campaign.compare import Comparison, compare
from harness.campaign.outcomes import CANNOT_TELL, WORSE
from harness.cli.common import (
    JSON,
    out,
    write,
)
from harness.results.record import read_run

STATUS = {WORSE: 1, CANNOT_TELL: 3}
MAX_FIGURES = 40


def options(parser: argparse.ArgumentParser) -> None:
    """The two runs."""
    parser.add_argument("base", type=Path, help="results of the run to compare with")
    parser.add_argument("patched", type=Path, help="results of the run to judge")
    parser.add_argument(
        "--html", type=Path, metavar="FILE", help="write both beside each other, case by case"
    )
    parser.add_argument("--json", action="store_true", help=JSON)


def act(arguments: argparse.Namespace) -> int:
    """Exit status 0 same or better, 1 worse, 3 cannot tell."""
    base, patched = (read_run(folder).records for folder in (arguments.base, arguments.patched))
    found = compare(base, patched)
    if arguments.html:
        names = (str(arguments.base), str(arguments.patched))
        write(arguments.html, side_by_side_html.render(found, base, patched, names=names))
    if arguments.json:
        sys.stdout.write(json.dumps(dataclasses.asdict(found)) + "\n")
    else:
        show(found)
    return STATUS.get(found.verdict, 0)


def show(found: Comparison) -> None:
    """Print a comparison: figures that moved, what the verdict rests on, the verdict."""
    moved = sorted(found.figures, key=lambda figure: -abs(figure.change))[:MAX_FIGURES]
    if any(figure.change for figure in moved):
        table = Table("case", "stage", "unit", "base", "patched", "change", "band")
        for figure in (figure for figure in moved if figure.change):
            unit = "instructions" if figure.exact else "ns"
            numbers = (
                f"{figure.base:.0f}",
                f"{figure.patched:.0f}",
                f"{figure.change:+.0f}",
                f"{figure.band:.0f}",
            )
            table.add_row(figure.case, figure.stage, unit, *numbers)
        out.print(table)
    for line in found.environment:
        out.print(f"differs: {line}", markup=False)
    for change in found.changes:
        out.print(f"{change.verdict}: {change.case}: {change.text}", markup=False)
    cases = {figure.case for figure in found.figures}
    out.print(
        f"verdict: {found.verdict} ({len(cases)} cases with figures, {len(found.changes)} differences)",
        markup=False,
    )
