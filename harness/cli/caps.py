"""On-demand paging as verbs and firmware state it."""

from __future__ import annotations

import argparse
import json
import sys

from rich.table import Table

from harness.cli.screen import JSON, open_session, out
from harness.plan import caps

TEXT = "What a device can do on demand: as verbs say, and as a card's firmware states."


def options(parser: argparse.ArgumentParser) -> None:
    """Its options."""
    parser.add_argument("--device", default="connectx-5")
    parser.add_argument("--kernel", default="newest", metavar="SERIES")
    parser.add_argument("--json", action="store_true", help=JSON)


def act(arguments: argparse.Namespace) -> int:
    """Print them side by side."""
    with open_session(arguments) as session:
        found = caps.ask(session, arguments.kernel, arguments.device)
    if arguments.json:
        sys.stdout.write(json.dumps(found.plain()) + "\n")
        return 0
    schemes = [f"firmware, {name} scheme" + ("*" * (name == found.scheme)) for name in found.firmware]
    title = f"on-demand paging of {found.device} on {found.kernel}, there {found.rdma_device}"
    table = Table("", "verbs", *schemes, title=title, caption="* what the driver chose" if schemes else None)
    for row, words in found.verbs.items():
        table.add_row(
            row, *(" ".join(w) or "-" for w in (words, *(f.get(row, ()) for f in found.firmware.values())))
        )
    out.print(table)
    return 0
