"""`odp-harness kernel`: list and fetch kernels of the archive, print options for a .config."""

from __future__ import annotations

import argparse
import sys

from harness.cli.common import open_session, out
from harness.errors import Unsupported
from harness.kernel import config
from harness.kernel.local_tree import find, named
from harness.kernel.packages import SERIES
from harness.plan.session import Session


def options(parser: argparse.ArgumentParser) -> None:
    """Add the verb's options."""
    parser.add_argument("action", choices=("list", "fetch", "config"))
    parser.add_argument(
        "series", nargs="*", help=f"{', '.join(SERIES)}, an exact release, or a tree; default: all series"
    )
    parser.add_argument("--refresh", action="store_true", help="read the archive's lists again")


def act(arguments: argparse.Namespace) -> int:
    """Print each series with its release, package and cache state; or lines for a .config."""
    if arguments.action == "config":
        sys.stdout.writelines(f"{line}\n" for line in config.settings())
        return 0
    from rich.table import Table

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
            package, key = _origin(session, series, release)
            cached = any((session.store.root / "kernel").glob(key))
            table.add_row(series, release, package, "yes" if cached else "no")
        out.print(table)
    return 3 if missing and arguments.action == "fetch" else 0


def _origin(session: Session, series: str, release: str) -> tuple[str, str]:
    """Return the origin of a kernel, and a pattern for its cache key."""
    folder = named(series)
    if folder is not None:
        return "a tree", find(folder).key
    package = session.archive.show(f"linux-image-{release}")
    return package.version if package else "?", f"{release}-*"
