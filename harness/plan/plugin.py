"""Plan files as pytest items: `pytest testplans/` and its -k, -x, -n, --junitxml behave as pytest users expect."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from harness.errors import HarnessError, SetupError
from harness.plan.options import OPTIONS, Logs, Options
from harness.plan.plan import Planned, load
from harness.plan.results_dir import open_results
from harness.plan.runner import CaseRunner
from harness.plan.select import (
    chosen,
    newest_is_another,
)
from harness.plan.session import Session
from harness.results.record import RunStore
from harness.values.record import Record

RECORD = "odp_record"
PROGRESS = "progress.log"
"""Where workers write their progress."""
SAY = pytest.StashKey[Callable[[str], None]]()
SESSION = pytest.StashKey[Session]()
RUNNER = pytest.StashKey[CaseRunner]()
RESULTS = pytest.StashKey[RunStore]()


class CaseFailed(Exception):
    """A case whose verdict is fail or error; the record has the reasons."""

    def __init__(self, record: Record, path: Path) -> None:
        super().__init__(record.case.id)
        self.record = record
        self.path = path

    def __str__(self) -> str:
        lines = [f"{self.record.verdict}: {self.record.case.id}"]
        lines += [f"  {reason}" for reason in self.record.reasons]
        lines += [f"  record: {self.path}"]
        return "\n".join(lines)


def pytest_addoption(parser: pytest.Parser) -> None:
    """Declare the options of the plugin, which are those of `odp-harness run`, too."""
    group = parser.getgroup("odp-harness")
    for option in OPTIONS:
        option.add(group.addoption)


def pytest_collect_file(file_path: Path, parent: pytest.Collector) -> pytest.Collector | None:
    """Collect a .toml file as a plan if it is in testplans/ itself or was named."""
    if file_path.suffix != ".toml":
        return None
    named = any(Path(arg.split("::")[0]).resolve() == file_path for arg in parent.config.args)
    if named or file_path.parent.name == "testplans":
        return PlanFile.from_parent(parent, path=file_path)
    return None


class PlanFile(pytest.File):
    """One plan."""

    def collect(self) -> Iterable[pytest.Item]:
        """Yield its cases, for the chosen kernels and devices."""
        plan = load(self.path)
        for planned in chosen(plan, self.config.option):
            name = planned.case.id.removeprefix(plan.name + "/")
            yield PlanItem.from_parent(self, name=name, planned=planned)

    def repr_failure(self, excinfo: pytest.ExceptionInfo[BaseException], style: Any = None) -> str:
        """Return the error of a broken plan without a traceback."""
        return (
            excinfo.value.render()
            if isinstance(excinfo.value, HarnessError)
            else str(super().repr_failure(excinfo))
        )


class PlanItem(pytest.Item):
    """One case."""

    def __init__(self, *, planned: Planned, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.planned = planned
        self.extra_keyword_matches.add(planned.case.id)
        self.add_marker(pytest.mark.timeout(0))  # the machine's own deadlines bound it, and leave evidence

    def runtest(self) -> None:
        """Run it, store the record first of all, then report to pytest."""
        option = self.config.option
        store = self.config.stash[RESULTS]
        record, logs = self.config.stash[RUNNER].run(self.planned, option.twice, option.no_skip)
        record = keep(store, record, logs)
        path = store.add(record)
        # As with logs: a full disk does not cost the case.
        with contextlib.suppress(SetupError):
            store.keep_plan(self.planned.plan.name, self.planned.plan.text)
        self.user_properties.append((RECORD, str(path)))
        if record.verdict == "skip":
            pytest.skip("; ".join(reason.text for reason in record.reasons))
        if record.verdict in ("fail", "error"):
            raise CaseFailed(record, path)

    def repr_failure(self, excinfo: pytest.ExceptionInfo[BaseException], style: Any = None) -> str:
        """Return our own errors without a traceback."""
        if isinstance(excinfo.value, CaseFailed | HarnessError):
            return str(excinfo.value)
        return str(super().repr_failure(excinfo))

    def reportinfo(self) -> tuple[Path, int | None, str]:
        """Return the plan's file and the case's name."""
        return self.path, None, self.name


def keep(store: RunStore, record: Record, logs: Logs) -> Record:
    """Write the logs of a case beside the records, unless it passed, and name them in the record.

    Block coverage is written for each case, under the name of its record.
    """
    # On a full disk the record, which is small, matters more than the logs.
    with contextlib.suppress(OSError, SetupError):
        if logs.blocks is not None:
            path = store.log_path(record.case.id, "blocks", ".json")
            path.write_text(json.dumps({"case": record.case.id, "ran": logs.blocks}))
    if record.verdict in ("pass", "skip"):
        return record
    with contextlib.suppress(OSError, SetupError):
        if logs.console:
            path = store.log_path(record.case.id, "console")
            path.write_text(logs.console, encoding="utf-8")
            record = replace(record, log=store.relative(path))
        if logs.card:
            path = store.log_path(record.case.id, "card", ".jsonl.gz")
            path.write_bytes(logs.card)
            record = replace(record, card_log=store.relative(path))
    return record


@pytest.hookimpl(trylast=True)  # after -k and -m
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Open the session and the results once there is something to run."""
    plans = [item for item in items if isinstance(item, PlanItem)]
    if not plans or config.option.collectonly:
        return
    # Cases that share a snapshot run one after the other.
    items.sort(
        key=lambda item: (item.planned.kernel, item.planned.clock) if isinstance(item, PlanItem) else ("", "")
    )
    option = config.option
    workerinput = getattr(config, "workerinput", None)
    if workerinput is not None:
        config.stash[RESULTS] = RunStore.join(Path(workerinput["odp_results"]), workerinput["odp_done"])
        progress = config.stash[RESULTS].directory / PROGRESS
        config.stash[SAY] = lambda line: _write_progress(progress, line)
    elif RESULTS not in config.stash:
        config.stash[RESULTS] = open_results(config, len(plans))
    if workerinput is not None or not getattr(option, "numprocesses", None):
        say = config.stash.get(SAY, lambda line: None)
        options = replace(Options.of(option), payload=option.payload, blocks=tuple(option.blocks))
        session = config.stash[SESSION] = Session(options, say)
        config.stash[RUNNER] = CaseRunner(session)
        if "all" in option.kernel:
            _leave_out_twins(items, session.kernels.resolve)
        if workerinput is None:
            config.stash[RESULTS].announce(sum(isinstance(item, PlanItem) for item in items))
    _leave_out_done(config, items)


def _leave_out_twins(items: list[pytest.Item], resolve: Callable[[str], str]) -> None:
    if newest_is_another({item.planned.kernel for item in items if isinstance(item, PlanItem)}, resolve):
        items[:] = [
            item for item in items if not (isinstance(item, PlanItem) and item.planned.kernel == "newest")
        ]


def _leave_out_done(config: pytest.Config, items: list[pytest.Item]) -> None:
    done = set(config.stash[RESULTS].done)
    known: list[pytest.Item] = []
    left: list[pytest.Item] = []
    for item in items:
        (known if isinstance(item, PlanItem) and item.planned.case.id in done else left).append(item)
    if known:
        config.hook.pytest_deselected(items=known)
        items[:] = left


def _write_progress(path: Path, line: str) -> None:
    with path.open("a", encoding="utf-8") as file:
        file.write(line + "\n")


def _may_hold_plans(argument: str) -> bool:
    path = Path(argument.split("::")[0])
    return path.suffix == ".toml" or any(file.parent.name == "testplans" for file in path.rglob("*.toml"))


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: Any) -> None:
    """Pass the results folder to each worker of pytest-xdist, if there may be results."""
    config = node.config
    if RESULTS not in config.stash:
        if not any(map(_may_hold_plans, config.args)):
            return
        config.stash[RESULTS] = open_results(config)
    node.workerinput["odp_results"] = str(config.stash[RESULTS].directory)
    node.workerinput["odp_done"] = list(config.stash[RESULTS].done)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_node_collection_finished(node: Any, ids: list[str]) -> None:
    """Note how many cases there are: all workers collect the same."""
    store = node.config.stash.get(RESULTS, None)
    if store is None:
        return
    store.announce(len(ids) + len(store.done))


def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    """Close the session and the results."""
    opened = session.config.stash.get(SESSION, None)
    if opened is not None:
        opened.close()
    results = session.config.stash.get(RESULTS, None)
    if results is not None and not hasattr(session.config, "workerinput"):
        # pytest-xdist interrupts itself after -x and --maxfail: no Ctrl-C.
        limit = session.config.option.maxfail
        by_itself = limit and session.testsfailed >= limit
        results.finish(interrupted=exitstatus == pytest.ExitCode.INTERRUPTED and not by_itself)


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    """Print where the records are."""
    results = config.stash.get(RESULTS, None)
    if results is not None:
        terminalreporter.write_line(f"records: {results.directory} (odp-harness report {results.directory})")
