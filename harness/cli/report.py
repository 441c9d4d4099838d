"""Reports of a stored run."""

from __future__ import annotations

import argparse
from pathlib import Path

from harness.cli.screen import out
from harness.results.live import open_view
from harness.results.record import exit_status, read_run
from harness.results.reports import write_reports

TEXT = "Make the reports of a run again."


def options(parser: argparse.ArgumentParser) -> None:
    """Its options."""
    parser.add_argument("directory", type=Path)


def act(arguments: argparse.Namespace) -> int:
    """Write them beside the records; the exit status is that of the run."""
    reports = write_reports(arguments.directory)
    run = read_run(arguments.directory)
    open_view(out).summary(run, reports["report.html"])
    return exit_status(run.records)
