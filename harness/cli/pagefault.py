"""`odp-harness pagefault`: watch and resume page faults of the host's cards, through the kernel module."""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from pathlib import Path

import harness

PROGRAM = "harness.guest.kmod.cli"


def options(parser: argparse.ArgumentParser) -> None:
    """Pass everything to the program, which has its own `--help`."""
    parser.add_argument(
        "words",
        nargs=argparse.REMAINDER,
        metavar="devices|caps|watch|resume ...",
        help="see `odp-harness pagefault watch --help`",
    )


def act(arguments: argparse.Namespace) -> int:
    """Run the guest's program on the host, as a process; return its exit status."""
    path = str(Path(harness.__file__).parents[1])
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([path, os.environ.get("PYTHONPATH", "")])}
    words = arguments.words or ["--help"]
    try:
        return subprocess.run(
            [sys.executable, "-m", PROGRAM, *words], env=environment, check=False
        ).returncode
    except KeyboardInterrupt:
        return 0
