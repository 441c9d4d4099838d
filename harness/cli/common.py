"""What every verb shares: where it prints, and the session that its common options ask for."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console

from harness.errors import SetupError, UsageError
from harness.plan.options import Options
from harness.plan.results_dir import default_results
from harness.plan.session import Session
from harness.results.record import write_atomically
from harness.store import parse_size

JSON = "print one JSON object and nothing else on stdout"
KERNEL = "a series, an exact release, or the folder of a kernel tree that is built"
RESUME = "go on with what was stopped, in its folder of results; the rest of the command as it was"

out = Console(highlight=False, soft_wrap=True)
err = Console(stderr=True, highlight=False, soft_wrap=True)


def common_options(parser: argparse.ArgumentParser) -> None:
    """Where things come from and are kept: options of every verb."""
    where = "default: $ODP_HARNESS_CACHE, else ~/.cache/odp-harness"
    parser.add_argument("--cache", type=Path, metavar="DIR", help=where)
    parser.add_argument("--cache-limit", metavar="SIZE", help="as 30G (the default)")
    parser.add_argument("--mirror", metavar="URL", help="Debian archive (default: the host's own)")
    parser.add_argument("--vm-images", type=Path, metavar="DIR", help="default: vm-images/ of the checkout")
    parser.add_argument("--image", default="trixie", help="a file of vm-images/, without .toml")


def results_options(parser: argparse.ArgumentParser) -> None:
    """Where results go, or are."""
    where = parser.add_mutually_exclusive_group()
    where.add_argument("--results", type=Path, metavar="DIR", help="default: odp-results/TIME")
    where.add_argument("--resume", type=Path, metavar="DIR", help=RESUME)


def resumed_results(arguments: argparse.Namespace) -> Path:
    """The folder of --resume, UsageError when it is not there; else as `new_results`."""
    if not arguments.resume:
        return new_results(arguments)
    results: Path = arguments.resume
    if not results.is_dir():
        raise UsageError(f"{results} does not exist", hint="the folder that was named when it stopped")
    return results


def goes_on(results: Path) -> str:
    """What to type after Ctrl-C."""
    return f"to go on: the same with --resume {results}"


@contextmanager
def resumable(results: Path) -> Iterator[None]:
    """Ctrl-C inside says how to go on."""
    try:
        yield
    except KeyboardInterrupt:
        if results.exists():
            err.print(goes_on(results), markup=False)
        raise


def new_results(arguments: argparse.Namespace) -> Path:
    """The folder of --results, or one of the time; UsageError when something is there."""
    results: Path = arguments.results or default_results()
    if results.exists() and any(results.iterdir()):
        raise UsageError(f"{results} is not empty", hint="another --results")
    return results


def write(path: Path, text: str) -> None:
    """Write a file that was asked for, whole or not at all; SetupError if it cannot be."""
    try:
        write_atomically(path, text)
    except OSError as error:
        raise SetupError(f"{path} cannot be written: {error.strerror or error}") from error


def open_session(arguments: argparse.Namespace) -> Session:
    """The session of the common options; its progress goes to stderr."""
    limit = parse_size(arguments.cache_limit) if arguments.cache_limit else None
    options = Options(arguments.cache, limit, arguments.mirror, arguments.image, arguments.vm_images)
    return Session(options, lambda line: err.print(f"… {line}", style="dim", markup=False))
