"""Reports of a stored run."""

from __future__ import annotations

import argparse
from pathlib import Path

from harness.cli.common import out
from harness.results.exports import EXPORTS, export_of
from harness.results.record import read_run, write_atomically
from harness.results.reports import write_reports
from harness.results.terminal import open_view


def options(parser: argparse.ArgumentParser) -> None:
    """Add the options of the verb."""
    parser.add_argument("directory", type=Path)
    ends = ", ".join(EXPORTS)
    parser.add_argument(
        "--export", type=Path, action="append", default=[], metavar="FILE", help=f"traced faults, too: {ends}"
    )


def act(arguments: argparse.Namespace) -> int:
    """Write them beside the records; return the exit status of the run."""
    exports = [(path, export_of(path)) for path in arguments.export]
    reports = write_reports(arguments.directory)
    run = read_run(arguments.directory)
    traces = {record.case.id: record.answer.trace for record in run.records if record.answer is not None}
    for path, export in exports:
        write_atomically(path, export(traces))
    open_view(out).summary(run, reports["report.html"])
    return run.status
