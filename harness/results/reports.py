"""Write all reports of a run beside its records; they can be written again at any time."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from harness.errors import SetupError
from harness.results import html, junit, kcidb, ktap
from harness.results.record import Run, read_run, write_atomically

REPORTS: dict[str, Callable[[Run], str]] = {
    "report.html": html.render,
    "junit.xml": junit.render,
    "results.ktap": ktap.render,
    "kcidb.json": kcidb.render,
}


def write_reports(directory: Path) -> dict[str, Path]:
    """Write every report of the run in `directory` there and return their paths by name.

    UsageError if it holds no run, SetupError if it cannot be written.
    """
    run = read_run(directory)
    paths = {name: directory / name for name in REPORTS}
    try:
        for name, path in paths.items():
            write_atomically(path, REPORTS[name](run))
    except OSError as error:
        raise SetupError(
            f"the reports cannot be written: {error.strerror or error}", evidence=(f"path: {directory}",)
        ) from error
    return paths
