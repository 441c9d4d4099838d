"""Kernels of the archive."""

from __future__ import annotations

import argparse

from rich.table import Table

from harness.cli.screen import open_session, out
from harness.errors import Unsupported
from harness.kernel.packages import SERIES

TEXT = "List the kernels of the archive, or fetch some."


def options(parser: argparse.ArgumentParser) -> None:
    """Its options."""
    parser.add_argument("action", choices=("list", "fetch"))
    parser.add_argument(
        "series", nargs="*", help=f"{', '.join(SERIES)}, or an exact release; default: all series"
    )
    parser.add_argument("--refresh", action="store_true", help="read the archive's lists anew")


def act(arguments: argparse.Namespace) -> int:
    """Print each series with its release, package and whether it is cached."""
    with open_session(arguments) as session:
        if arguments.refresh:
            session.archive.refresh(max_age_s=0)
        table = Table("series", "release", "package", "cached")
        missing = []
        for series in arguments.series or SERIES:
            try:
                if arguments.action == "fetch":
                    session.kernel(series)
                release = session.kernels.resolve(series)
            except Unsupported as error:
                missing.append(error.headline)
                table.add_row(series, "-", error.headline, "")
                continue
            package = session.archive.show(f"linux-image-{release}")
            cached = any((session.store.root / "kernel").glob(f"{release}-*"))
            table.add_row(series, release, package.version if package else "?", "yes" if cached else "no")
        out.print(table)
    return 3 if missing and arguments.action == "fetch" else 0
