"""Run plans on bugs of the past."""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from harness.campaign import corpus_entry
from harness.campaign.corpus import CANNOT_APPLY, CAUGHT, MISSED, Outcome, run
from harness.cli.common import (
    JOBS,
    JSON,
    new_results,
    open_session,
    out,
)
from harness.errors import UsageError
from harness.plan.checkout import find_folder


def options(parser: argparse.ArgumentParser) -> None:
    """Add the bugs and the form of the output."""
    where = "names or files of bugs (default: all of testplans/regressions)"
    parser.add_argument("entries", nargs="*", metavar="ENTRY", help=where)
    parser.add_argument("--results", type=Path, metavar="DIR", help="default: odp-results/TIME")
    parser.add_argument("-j", "--jobs", type=int, default=os.cpu_count() or 1, help=JOBS)
    parser.add_argument("--json", action="store_true", help=JSON)


def act(arguments: argparse.Namespace) -> int:
    """Exit with status 0 when all were caught, 1 when one was missed, 3 when one could not be reintroduced.

    After Ctrl-C the outcomes so far are printed.
    """
    plans = find_folder("testplans", None)
    known = {path.stem: path for path in sorted((plans / "regressions").glob("*.toml"))}
    files = [known.get(name) or Path(name) for name in arguments.entries] or list(known.values())
    for path in files:
        if not path.is_file():
            raise UsageError(
                f"no bug is called {path}", [f"known: {', '.join(known)}"], "the name of one, or a file"
            )
    entries = [corpus_entry.load(path) for path in files]
    results = new_results(arguments)
    outcomes: list[Outcome] = []
    try:
        with open_session(arguments) as session:
            for outcome in run(session, entries, plans, results, arguments.jobs):
                outcomes.append(outcome)
                if not arguments.json:
                    _print(outcome)
    finally:
        counts = _summarize(outcomes, len(entries) - len(outcomes), results, arguments.json)
    return 1 if counts[MISSED] else 3 if counts[CANNOT_APPLY] or not outcomes else 0


def _print(outcome: Outcome) -> None:
    out.print(f"{outcome.outcome:12}  {outcome.entry}  {outcome.wall_s:.0f} s", markup=False)
    out.print(f"      {outcome.case or outcome.kernel}: {outcome.reason}", markup=False)


def _summarize(outcomes: Sequence[Outcome], left: int, results: Path, as_json: bool) -> Counter[str]:
    """Print the totals; `left` entries were not run."""
    counts = Counter(outcome.outcome for outcome in outcomes)
    totals = {name: counts[name] for name in (CAUGHT, MISSED, CANNOT_APPLY)}
    if as_json:
        listed = [dataclasses.asdict(outcome) for outcome in outcomes]
        sys.stdout.write(json.dumps({**totals, "not_run": left, "entries": listed}) + "\n")
        sys.stdout.flush()
        return counts
    parts = [f"{number} {name}" for name, number in totals.items()]
    out.print(", ".join([*parts, f"{left} not run"] if left else parts), markup=False)
    out.print(f"records: {results}", markup=False)
    return counts
