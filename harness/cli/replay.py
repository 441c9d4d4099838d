"""A stored case, run again."""

from __future__ import annotations

import argparse
import dataclasses
from pathlib import Path

from harness.cli.screen import open_session, out
from harness.plan.checkout import find_folder
from harness.plan.replay import difference, planned, stored
from harness.plan.session import Session

TEXT = (
    "Run a stored case again, with the same kernel, modules and seed, and say whether it ends the same way."
)


def options(parser: argparse.ArgumentParser) -> None:
    """Which record."""
    parser.add_argument("record", type=Path, help="a file of RESULTS/records")
    parser.add_argument("--times", type=int, default=1, metavar="N", help="how often (default 1)")
    given = "modules to give the machine (default: those beside the record)"
    parser.add_argument("--parcel", type=Path, metavar="DIR", help=given)


def act(arguments: argparse.Namespace) -> int:
    """Exit status 0 when each run ended as the record says, else 1."""
    found = stored(arguments.record)
    record = found.record
    case = planned(record, find_folder("testplans", None))
    reasons = "; ".join(map(str, record.reasons))
    out.print(f"{record.verdict}  {record.case.id}  {reasons}".rstrip(), markup=False)
    with open_session(arguments) as opened:
        wanted = dataclasses.replace(opened.options, parcel=arguments.parcel or found.parcel)
        with Session(wanted, opened.say) as session:
            ends = [difference(session, record, case) for _ in range(arguments.times)]
    for number, end in enumerate(ends, 1):
        out.print(f"run {number}: {end or 'ends the same way'}", markup=False)
    return 1 if any(ends) else 0
