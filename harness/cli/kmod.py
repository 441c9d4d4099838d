"""`odp-harness kmod`: build the kernel module for a kernel, load and unload it on the host."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path

from harness.cli.common import open_session, out
from harness.errors import UsageError
from harness.kernel import insmod
from harness.kernel.build import build
from harness.plan.checkout import find_folder
from harness.plan.prepare import MODULE, MODULE_FOLDER
from harness.plan.session import Session


def options(parser: argparse.ArgumentParser) -> None:
    """Add the verb's options."""
    parser.add_argument("action", choices=("build", "load", "unload"))
    kernel = "build: for this kernel (newest); load: built for this release of the archive, not with the local headers"
    parser.add_argument("--kernel", metavar="KERNEL", help=kernel)
    parser.add_argument("--source", type=Path, help="a folder with a Kbuild file (default: kmod/)")
    parser.add_argument(
        "--make", action="append", default=[], metavar="WORD", help="argument for make, as W=1 or C=2"
    )
    parser.add_argument("--file", type=Path, metavar="MODULE.ko", help="load: this module, built before")


def act(arguments: argparse.Namespace) -> int:
    """Print the compiler's messages and the modules' paths, or that the module was loaded or unloaded."""
    with open_session(arguments) as session:
        if arguments.action == "unload":
            insmod.unload(MODULE, session.host)
            out.print(f"{MODULE} unloaded")
        elif arguments.action == "build":
            for path in _built(arguments, session).values():
                out.print(str(path), markup=False, soft_wrap=True)
        elif arguments.file is not None:
            if not arguments.file.is_file():
                raise UsageError(f"{arguments.file} does not exist")
            _load(arguments.file, session)
        elif arguments.kernel is not None:
            _load(next(iter(_built(arguments, session).values())), session)
        else:
            with session.ledger.scratch_folder("module") as into:
                _load(
                    insmod.build_here(find_folder(MODULE_FOLDER, arguments.source), into, session.host),
                    session,
                )
    return 0


def _built(arguments: argparse.Namespace, session: Session) -> Mapping[str, Path]:
    folder = find_folder(MODULE_FOLDER, arguments.source)
    kernel = session.kernel(arguments.kernel or "newest")
    built = build(folder, kernel, session.archive, tuple(arguments.make))
    for message in built.messages:
        out.print(message, markup=False, soft_wrap=True)
    return built.modules


def _load(file: Path, session: Session) -> None:
    insmod.load(file, session.host)
    out.print(f"{file.stem} loaded; odp-harness pagefault devices", markup=False)
