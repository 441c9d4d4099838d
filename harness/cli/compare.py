"""Compare two stored runs."""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from rich.table import Table

from harness.campaign import side_by_side_html
from harness.campaign.compare import Comparison, compare
from harness.campaign.metrics import Metric
from harness.campaign.no_difference import summary
from harness.campaign.outcomes import INCONCLUSIVE, NO_DIFFERENCE, REGRESSION, Difference
from harness.cli.common import (
    JSON,
    out,
    write,
)
from harness.results.record import read_run

STATUS = {REGRESSION: 1, INCONCLUSIVE: 3}
MAX_METRICS = 40


def options(parser: argparse.ArgumentParser) -> None:
    """Add the two runs and the form of the output."""
    parser.add_argument("baseline", type=Path, help="folder of results of the baseline")
    parser.add_argument("patched", type=Path, help="folder of results of the run to compare with it")
    parser.add_argument("--html", type=Path, metavar="FILE", help="write both side by side, case by case")
    parser.add_argument("--json", action="store_true", help=JSON)


def act(arguments: argparse.Namespace) -> int:
    """Exit with status 0 for no difference or an improvement, 1 for a regression, 3 if inconclusive."""
    baseline, patched = (read_run(folder).records for folder in (arguments.baseline, arguments.patched))
    comparison = compare(baseline, patched)
    if arguments.html:
        names = (str(arguments.baseline), str(arguments.patched))
        write(arguments.html, side_by_side_html.render(comparison, baseline, patched, names=names))
    if arguments.json:
        sys.stdout.write(json.dumps(dataclasses.asdict(comparison)) + "\n")
    else:
        show(comparison)
    return STATUS.get(comparison.verdict, 0)


def show(comparison: Comparison, banded: bool = False) -> None:
    """Print a comparison: metrics that moved, the differences that the verdict rests on, the verdict.

    `banded`: by `regress`, which measures noise bands.
    """
    moved = [metric for metric in comparison.metrics if metric.change]
    if moved:
        _table(moved)
    for line in comparison.environment:
        out.print(f"environments differ in {line}", markup=False)
    for case in comparison.failing:
        out.print(f"fails on baseline and patched alike: {case}", markup=False)
    for case in comparison.known:
        out.print(f"known failure on baseline and patched alike: {case}", markup=False)
    for each in comparison.differences:
        out.print(f"{each.verdict}: {each.case}: {each.text}{_confirmed(each)}", markup=False)
    if comparison.verdict == NO_DIFFERENCE and comparison.metrics:
        out.print(summary(comparison.metrics, banded), markup=False)
    cases = len({metric.case for metric in comparison.metrics})
    counts = (
        f"{_number(cases, 'case')} compared by latency, {_number(len(comparison.differences), 'difference')}"
    )
    out.print(f"verdict: {comparison.verdict} ({counts})", markup=False)


def _table(moved: Sequence[Metric]) -> None:
    title = f"the {MAX_METRICS} of {len(moved)} metrics that moved most" if len(moved) > MAX_METRICS else None
    table = Table(
        "case", "stage", "statistic", "unit", "baseline", "patched", "change", "noise band", title=title
    )
    for metric in sorted(moved, key=lambda metric: -abs(metric.change))[:MAX_METRICS]:
        unit = "instructions" if metric.exact else "ns"
        table.add_row(
            metric.case,
            metric.stage,
            metric.statistic,
            unit,
            f"{metric.baseline:.0f}",
            f"{metric.patched:.0f}",
            f"{metric.change:+.0f}",
            f"+/-{metric.noise_band:.0f}" if metric.noise_band else "-",
        )
    out.print(table)


def _confirmed(difference: Difference) -> str:
    builds = difference.confirmed_builds
    return f"; confirmed by {_number(builds, 'more build')} of the patched source" if builds else ""


def _number(number: int, noun: str) -> str:
    return f"{number} {noun}{'s' if number != 1 else ''}"
