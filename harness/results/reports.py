"""Write all reports of a run beside its records; they can be written again at any time."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path

from harness.errors import SetupError
from harness.results.record import read_run, write_atomically

REPORTS = {"report.html": "html", "junit.xml": "junit", "results.ktap": "ktap", "kcidb.json": "kcidb"}
"""The modules of this folder by report. They are imported when used: jinja2 and junitparser take 0.25 s."""


def write_reports(directory: Path) -> dict[str, Path]:
    """Write every report of the run in `directory` there and return their paths by name.

    UsageError if it holds no run, SetupError if it cannot be written.
    """
    run = read_run(directory)
    paths = {name: directory / name for name in REPORTS}
    try:
        for name, path in paths.items():
            module = import_module(f"harness.results.{REPORTS[name]}")
            write_atomically(path, module.render(run))
    except OSError as error:
        raise SetupError(
            f"the reports cannot be written: {error.strerror or error}", evidence=(f"path: {directory}",)
        ) from error
    return paths
