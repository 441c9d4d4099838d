"""pytest's news of a run, handed to a view."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.plan import plugin
from harness.results.live import View
from harness.results.record import read_record


class Progress:
    """pytest plugin of `run`: hands what happens to a view, in this process also for cases run by workers."""

    def __init__(self, view: View) -> None:
        self.view = view

    def pytest_configure(self, config: pytest.Config) -> None:
        """Lines of progress go to the view."""
        config.stash[plugin.SAY] = self.view.progress

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        """How many cases there are."""
        if session.items:
            self.view.expect(len(session.items))

    def pytest_runtest_logstart(self, nodeid: str) -> None:
        """A case starts."""
        file, _, name = nodeid.partition("::")
        self.view.case_started(f"{Path(file).stem}/{name}")

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """A case has a record."""
        path = dict(report.user_properties).get(plugin.RECORD)
        if report.when == "call" and path:
            self.view.case_finished(read_record(Path(str(path))))
        elif report.failed:
            self.view.note(report.longreprtext)
