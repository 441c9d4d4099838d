"""The kernel module, built for a kernel of the archive."""

from __future__ import annotations

import argparse
from pathlib import Path

from harness.cli.screen import open_session, out
from harness.kernel.build import build
from harness.plan.checkout import find_folder

TEXT = "Build kmod/ (or a module of yours) for a kernel, in a root that holds the compiler which built it."


def options(parser: argparse.ArgumentParser) -> None:
    """Its options."""
    parser.add_argument("action", choices=("build",))
    parser.add_argument("--kernel", default="newest", metavar="SERIES")
    parser.add_argument("--source", type=Path, help="a folder with a Kbuild file (default: kmod/)")
    parser.add_argument("--make", action="append", default=[], metavar="WORD", help="for make, as W=1 or C=2")


def act(arguments: argparse.Namespace) -> int:
    """Print what the compiler said, then where the modules are."""
    folder = find_folder("kmod", arguments.source)
    with open_session(arguments) as session:
        built = build(folder, session.kernel(arguments.kernel), session.archive, tuple(arguments.make))
    for message in built.messages:
        out.print(message, markup=False, soft_wrap=True)
    for path in built.modules.values():
        out.print(str(path), markup=False, soft_wrap=True)
    return 0
