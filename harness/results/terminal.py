"""Show a run to people: live on a terminal, a line per case elsewhere, a summary at the end.

    with open_view(console) as view:
        view.expect(12)
        view.progress("kernel 7.3: fetching", 30, 117)
        view.case_started("soft-roce-write[7.3]")
        view.case_finished(record)
        view.note("the cache is full")
        view.summary(read_run(directory), report)

A view writes to its rich Console and nowhere else.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType

from rich.console import Console, Group, RenderableType
from rich.text import Text

from harness.results.record import Run, count
from harness.results.text import (
    VERDICT_ORDER,
    VERDICT_PLURALS,
    common_environment,
    one_line,
    other_findings,
    tally,
    unknown_commands,
    why,
)
from harness.values.record import VERDICTS, Record

STYLES = {
    "pass": "green",
    "fail": "bold red",
    "known": "yellow",
    "skip": "dim",
    "error": "bold magenta",
}
_OUTCOMES = {0: ("PASSED", "bold green"), 1: ("FAILED", "bold red"), 3: ("COULD NOT RUN", "bold magenta")}
_LISTED = 20
_RUNNING_LISTED = 8
_SYMPTOMS_LISTED = 3


class View:
    """The plain view, and the base of the live one: each event is a line."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self.expected = 0
        self.counts: Counter[str] = Counter()
        self._began = time.monotonic()
        self._step = ""

    def __enter__(self) -> View:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Restore the terminal; later output is plain."""

    def expect(self, cases: int) -> None:
        """Set the number of cases to come."""
        self.expected = cases

    def case_started(self, case_id: str) -> None:
        """Show that a case runs now."""

    def case_finished(self, record: Record) -> None:
        """Show the result of a case."""
        self.counts[record.verdict] += 1
        self._line(self._case_line(record))

    def note(self, text: str) -> None:
        """Show a message that is not about one case."""
        self._line(Text(one_line(text), style="cyan"))

    def progress(self, what: str, done: float = 0, total: float = 0) -> None:
        """Show the progress of a long step, which ends when done reaches total. Plain: once when it begins."""
        if what != self._step:
            self._step = what
            self._line(Text(f"{one_line(what)} ...", style="dim"))

    def summary(self, run: Run, report: Path | None = None) -> None:
        """Print the verdict, the failures and the path of the report; closes the view."""
        self.close()
        self._line(Text())
        for line in _environment_lines(run.records):
            self._line(line)
        for line in _trouble_lines(run.records):
            self._line(line)
        for line in _unknown_lines(run.records):
            self._line(line)
        for problem in run.damaged:
            self._line(Text(f"unreadable: {one_line(problem)}", style="yellow"))
        if run.missing:
            self._line(Text(f"{run.missing} of {run.index.expected} cases have no result", style="yellow"))
        word, style = _OUTCOMES[run.status]
        if run.index.interrupted:
            word, style = "INTERRUPTED", "bold yellow"
        seconds = time.monotonic() - self._began
        self._line(Text.assemble((word, style), f": {tally(count(run.records))} in {seconds:.1f} s"))
        if report is not None:
            self._line(Text(f"report: {report}"))

    def _case_line(self, record: Record) -> Text:
        line = Text.assemble((f"{record.verdict:<5}", STYLES[record.verdict]), " ", one_line(record.case.id))
        if record.verdict in ("pass", "fail"):
            line.append(f"  {record.wall_s:.1f} s", style="dim")
        if record.reasons:
            line.append(f"  {why(record)}", style="" if record.verdict in ("fail", "error") else "dim")
        findings = other_findings(record)
        if findings:
            line.append(f"  finding: {one_line(findings[0])}", style="dim")
        return line

    def _line(self, text: Text) -> None:
        self.console.print(text, soft_wrap=True, highlight=False, markup=False)


class LiveView(View):
    """Finished cases scroll by; running cases and the total progress stay at the bottom."""

    def __init__(self, console: Console) -> None:
        from rich.live import Live

        super().__init__(console)
        self._running: dict[str, float] = {}
        self._steps: dict[str, tuple[float, float]] = {}
        self._live = Live(
            console=console, get_renderable=self._picture, refresh_per_second=4, transient=True, screen=False
        )

    def __enter__(self) -> View:
        try:
            self._live.start()
        except BaseException:
            self.close()
            raise
        return self

    def close(self) -> None:
        """Remove the live part and show the cursor again."""
        self._live.stop()
        self.console.show_cursor(True)

    def case_started(self, case_id: str) -> None:
        """Show the case among those running."""
        self._steps.clear()
        self._running[case_id] = time.monotonic()
        self._live.refresh()

    def case_finished(self, record: Record) -> None:
        """Let the case scroll by."""
        self._running.pop(record.case.id, None)
        super().case_finished(record)
        self._live.refresh()

    def progress(self, what: str, done: float = 0, total: float = 0) -> None:
        """Show the step, or remove it when it is done."""
        if total and done >= total:
            self._steps.pop(what, None)
        else:
            self._steps[what] = (done, total)

    def _picture(self) -> RenderableType:
        from rich.table import Table

        rows = Table.grid(padding=(0, 1))
        for what, (done, total) in list(self._steps.items()):
            rows.add_row(_bar(done, total), Text(one_line(what, 100)))
        now = time.monotonic()
        running = list(self._running.items())
        for case_id, began in running[:_RUNNING_LISTED]:
            rows.add_row(Text(f"{now - began:6.1f} s", style="dim"), Text(one_line(case_id, 160)))
        if len(running) > _RUNNING_LISTED:
            rows.add_row("", Text(f"and {len(running) - _RUNNING_LISTED} more", style="dim"))
        return Group(rows, self._total())

    def _total(self) -> RenderableType:
        from rich.table import Table

        finished = sum(self.counts.values())
        line = Table.grid(padding=(0, 1))
        counts = Text(f"{finished}/{self.expected}" if self.expected else f"{finished}")
        for verdict in VERDICTS:
            if self.counts[verdict]:
                counts.append(f"  {self.counts[verdict]} {VERDICT_PLURALS[verdict]}", style=STYLES[verdict])
        line.add_row(_bar(finished, self.expected), counts)
        return line


def _bar(done: float, total: float) -> RenderableType:
    from rich.progress_bar import ProgressBar

    return ProgressBar(
        total=total or None,
        completed=done,
        width=24,
        pulse=not total,
        style="bright_black",
        complete_style="blue",
        finished_style="blue",
        pulse_style="blue",
    )


def open_view(console: Console) -> View:
    """Open the live view on an interactive terminal, the plain one in CI, a pipe or a dumb terminal."""
    if console.is_terminal and console.is_interactive and not console.is_dumb_terminal:
        return LiveView(console)
    return View(console)


def _environment_lines(records: Sequence[Record]) -> list[Text]:
    """Write what all cases ran on; facts of the guest (`machine.`: probes, capabilities) are in the report."""
    common = {key: value for key, value in common_environment(records).items() if "." not in key}
    if not common:
        return []
    return [
        Text(", ".join(f"{one_line(key)} {one_line(value)}" for key, value in common.items()), style="dim")
    ]


def _unknown_lines(records: Sequence[Record]) -> list[Text]:
    """List commands that a card does not know, each with a stub of the method to write."""
    lines = []
    for one in unknown_commands(records):
        text = f"the card does not know {one_line(one.name)}, sent {one.count} times; a stub:"
        lines.append(Text(text, style="yellow"))
        lines += [Text(f"      {one_line(line)}", style="dim") for line in one.stub.splitlines()]
    return lines


def _trouble_lines(records: Sequence[Record]) -> list[Text]:
    """List cases that failed or could not run, failures first, with their reasons; only the first of many."""
    troubled = sorted(
        (record for record in records if record.verdict in ("fail", "error")),
        key=lambda record: VERDICT_ORDER.index(record.verdict),
    )
    lines = []
    for record in troubled[:_LISTED]:
        lines.append(
            Text.assemble((f"{record.verdict:<5}", STYLES[record.verdict]), " ", one_line(record.case.id))
        )
        lines += [
            Text(f"      {one_line(reason.kind)}: {one_line(reason.text, 400)}") for reason in record.reasons
        ]
        lines += [
            Text(f"      fingerprint: {one_line(symptom.fingerprint, 400)}", style="dim")
            for symptom in record.symptoms[:_SYMPTOMS_LISTED]
        ]
        lines += [
            Text(f"      log: {one_line(path)}", style="dim")
            for path in (record.log, record.card_log)
            if path
        ]
    if len(troubled) > _LISTED:
        lines.append(Text(f"and {len(troubled) - _LISTED} more, see the report", style="dim"))
    return lines
