"""`odp-harness cache`: show the size of the cache, or prune it."""

from __future__ import annotations

import argparse

from harness.cli.common import out
from harness.store import Store, default_root, parse_size


def options(parser: argparse.ArgumentParser) -> None:
    """Add the verb's options."""
    parser.add_argument(
        "--prune", metavar="SIZE", help="evict the least recently used entries until SIZE (as 5G) is left"
    )


def act(arguments: argparse.Namespace) -> int:
    """Prune if requested, then print sizes by kind."""
    from rich.table import Table

    store = Store(arguments.cache or default_root())
    if arguments.prune:
        for entry in store.prune(parse_size(arguments.prune)):
            out.print(f"removed {entry.kind}/{entry.key} ({entry.size_bytes >> 20} MiB)", markup=False)
    table = Table("kind", "entries", "MiB", title=str(store.root))
    sizes: dict[str, list[int]] = {}
    for entry in store.entries():
        sizes.setdefault(entry.kind, []).append(entry.size_bytes)
    for kind, bytes_each in sorted(sizes.items()):
        table.add_row(kind, str(len(bytes_each)), str(sum(bytes_each) >> 20))
    table.add_row("all", str(sum(map(len, sizes.values()))), str(sum(map(sum, sizes.values())) >> 20))
    out.print(table)
    return 0
