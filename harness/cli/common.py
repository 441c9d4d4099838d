"""Common code of the verbs: consoles, shared options, and the session that those describe."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console

from harness.errors import SetupError, UsageError
from harness.plan.options import KERNEL as KERNEL
from harness.plan.options import RESULTS_OPTIONS, SESSION_OPTIONS, Options
from harness.plan.results_dir import default_results
from harness.plan.session import Session
from harness.results.record import write_atomically

JOBS = "cases at the same time (default: one per CPU)"
JSON = "print one JSON object and nothing else on stdout"

out = Console(highlight=False, soft_wrap=True)
err = Console(stderr=True, highlight=False, soft_wrap=True)


def common_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of every verb: where everything comes from and is kept."""
    for option in SESSION_OPTIONS:
        option.add(parser.add_argument)


def results_options(parser: argparse.ArgumentParser) -> None:
    """Add --results and --resume, of which one may be given."""
    where = parser.add_mutually_exclusive_group()
    for option in RESULTS_OPTIONS:
        option.add(where.add_argument)


def resumed_results(arguments: argparse.Namespace) -> Path:
    """Return the folder of --resume, UsageError when it is not there; else as `new_results`."""
    if not arguments.resume:
        return new_results(arguments)
    results: Path = arguments.resume
    if not results.is_dir():
        raise UsageError(f"{results} does not exist", hint="the folder that was named when it stopped")
    return results


def goes_on(results: Path) -> str:
    """Return what to type after Ctrl-C."""
    return f"to go on: the same with --resume {results}"


@contextmanager
def resumable(results: Path) -> Iterator[None]:
    """Print how to go on after Ctrl-C."""
    try:
        yield
    except KeyboardInterrupt:
        if results.exists():
            err.print(goes_on(results), markup=False)
        raise


def new_results(arguments: argparse.Namespace) -> Path:
    """Return the folder of --results, or one named for the time; UsageError when it is not empty."""
    results: Path = arguments.results or default_results()
    if results.exists() and any(results.iterdir()):
        raise UsageError(f"{results} is not empty", hint="another --results")
    return results


def write(path: Path, text: str) -> None:
    """Write a requested file, whole or not at all; SetupError if it cannot be."""
    try:
        write_atomically(path, text)
    except OSError as error:
        raise SetupError(f"{path} cannot be written: {error.strerror or error}") from error


def open_session(arguments: argparse.Namespace) -> Session:
    """Open the session of the common options; its progress goes to stderr."""
    return Session(Options.of(arguments), lambda line: err.print(f"… {line}", style="dim", markup=False))
