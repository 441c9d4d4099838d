"""Claims of speed."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from rich.table import Table

from harness.bench import boot, card, exact, faults, kmod, repeats, trace
from harness.cli.screen import JSON, open_session, out
from harness.device.catalogue import find
from harness.errors import UsageError
from harness.plan.checkout import find_folder
from harness.plan.plan import load

CARD = "connectx-5"
TEXT = "Measure one claim of speed, as ratios of one run."


def options(parser: argparse.ArgumentParser) -> None:
    """Its options."""
    parser.add_argument("name", choices=("boot", "card", "exact", "faults", "kmod", "trace"))
    parser.add_argument("--json", action="store_true", help=JSON)
    parser.add_argument(
        "--rounds",
        type=int,
        help="how often (boot: 7, card: 5, exact: 10, with a card 20, faults: 400, kmod: 200)",
    )
    parser.add_argument("--kernel", default="newest", metavar="SERIES")
    model = "for card, faults, kmod and exact: the model (exact: soft-roce)"
    parser.add_argument("--device", help=model)
    plan = "for exact: the plan whose first case is run (default: odp-write)"
    parser.add_argument("--plan", type=Path, help=plan)


def act(arguments: argparse.Namespace) -> int:
    """Print the figures of one measurement."""
    with open_session(arguments) as session:
        result: Any
        if arguments.name == "boot":
            result = boot.measure(session, arguments.kernel, arguments.rounds or 7)
        elif arguments.name == "card":
            result = card.measure(session, arguments.kernel, arguments.device or CARD, arguments.rounds or 5)
        elif arguments.name == "faults":
            result = faults.measure(
                session, arguments.kernel, arguments.device or CARD, arguments.rounds or 400
            )
        elif arguments.name == "trace":
            result = trace.measure(session, arguments.kernel)
        elif arguments.name == "kmod":
            result = kmod.measure(
                session, arguments.kernel, arguments.device or CARD, arguments.rounds or 200
            )
        else:
            path = arguments.plan or find_folder("testplans", None) / "odp-write.toml"
            device = arguments.device or "soft-roce"
            planned = next(load(path).cases((arguments.kernel,), devices=(device,)), None)
            if planned is None:
                raise UsageError(f"{path} has no case for {device}")
            if find(device).plugged:
                result = repeats.measure(session, planned, arguments.rounds or 20)
            else:
                result = exact.measure(session, planned, arguments.rounds or 10)
    plain = result.plain()
    if arguments.json:
        sys.stdout.write(json.dumps(plain) + "\n")
        return 0
    table = Table("figure", "value", title=f"bench {arguments.name}")
    for name, value in plain.items():
        table.add_row(name, str(value))
    out.print(table)
    return 0
