"""On-demand paging capabilities of a device."""

from __future__ import annotations

import argparse
import json
import sys

from rich.table import Table

from harness.cli.common import (
    JSON,
    KERNEL,
    open_session,
    out,
)
from harness.plan import caps


def options(parser: argparse.ArgumentParser) -> None:
    """Add the options of the verb."""
    parser.add_argument("--device", default="connectx-5")
    parser.add_argument("--kernel", default="newest", metavar="KERNEL", help=KERNEL)
    parser.add_argument("--json", action="store_true", help=JSON)


def act(arguments: argparse.Namespace) -> int:
    """Print them side by side."""
    with open_session(arguments) as session:
        report = caps.ask(session, arguments.kernel, arguments.device)
    if arguments.json:
        sys.stdout.write(json.dumps(report.plain()) + "\n")
        return 0
    columns = {"verbs": report.verbs}
    for name, rows in report.firmware.items():
        columns[f"firmware, {name} scheme" + "*" * (name == report.scheme)] = rows
    for name, rows in sorted(report.module.items(), reverse=True):
        which, _, scheme = name.partition(".")
        if which == "cur":
            mark = "" if rows == report.module.get(f"max.{scheme}") else " !"
            columns[f"module, {scheme} scheme{mark}"] = rows
    title = f"on-demand paging of {report.device} on {report.kernel}, there {report.rdma_device}"
    notes = ["* what the driver chose"] * bool(report.firmware) + [f"no module: {report.no_module}"] * bool(
        report.no_module
    )
    table = Table("", title=title, caption="; ".join(notes) or None)
    for name in columns:
        table.add_column(name, overflow="fold")
    for row in report.verbs:
        table.add_row(row, *(" ".join(rows.get(row, ())) or "-" for rows in columns.values()))
    out.print(table)
    return 0
