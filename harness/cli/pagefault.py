"""Page faults of this machine's own cards, through the kernel module."""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from pathlib import Path

import harness

PROGRAM = "harness.guest.kmod.cli"


def options(parser: argparse.ArgumentParser) -> None:
    """All of it is the program's, which says more with `watch --help`."""
    parser.add_argument(
        "words",
        nargs=argparse.REMAINDER,
        metavar="devices|caps|watch|resume ...",
        help="`odp-harness pagefault watch --help` says more",
    )


def act(arguments: argparse.Namespace) -> int:
    """What runs on machines under test runs here as a program of its own, too; its exit status."""
    path = str(Path(harness.__file__).parents[1])
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([path, os.environ.get("PYTHONPATH", "")])}
    words = arguments.words or ["--help"]
    try:
        return subprocess.run(
            [sys.executable, "-m", PROGRAM, *words], env=environment, check=False
        ).returncode
    except KeyboardInterrupt:
        return 0
