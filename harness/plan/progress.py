"""Pass pytest's events of a run to a view."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from harness.plan import plugin
from harness.plan.plan import Planned
from harness.results.record import read_record
from harness.results.terminal import View


class Progress:
    """pytest plugin of `run`: passes events to a view, in this process also for cases run by workers.

    Workers of pytest-xdist send nothing between their reports, so they write their lines of progress into a
    file of the results, which is followed here.
    """

    def __init__(self, view: View, results: Path) -> None:
        self.view = view
        self._lines = results / plugin.PROGRESS
        self._over = threading.Event()
        self._follower = threading.Thread(target=self._follow, daemon=True)

    def pytest_configure(self, config: pytest.Config) -> None:
        """Send lines of progress to the view."""
        config.stash[plugin.SAY] = self.view.progress
        self._follower.start()

    def pytest_unconfigure(self) -> None:
        """End with the run."""
        self._over.set()
        self._follower.join()

    def _follow(self) -> None:
        shown = 0
        while not self._over.wait(0.2):
            if self._lines.exists():
                lines = self._lines.read_text(encoding="utf-8").splitlines()
                for line in lines[shown:]:
                    self.view.progress(line)
                shown = len(lines)

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        """Show how many cases there are."""
        if session.items:
            self.view.expect(len(session.items))

    def pytest_runtest_logstart(self, nodeid: str) -> None:
        """Show that a case starts."""
        file, _, name = nodeid.partition("::")
        self.view.case_started(f"{Path(file).stem}/{name}")

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Show the record of a case."""
        path = dict(report.user_properties).get(plugin.RECORD)
        if report.when == "call" and path:
            self.view.case_finished(read_record(Path(str(path))))
        elif report.failed:
            self.view.note(report.longreprtext)


class Listing:
    """pytest plugin of `run --list`: collects the cases that would run."""

    def __init__(self) -> None:
        self.cases: list[Planned] = []

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        """Keep the cases in the order of the plans."""
        self.cases = [item.planned for item in session.items if isinstance(item, plugin.PlanItem)]
