from __future__ import annotations

import io
import os
import pty
import select
import signal
import subprocess
import sys
import termios
import time
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from harness.results.terminal import (
    LiveView,
    View,
    open_view,
)
from harness.tests.unit.results.sample import hostile, mixed, record, stored


def plain_console(width=80):
    return Console(file=io.StringIO(), width=width, force_terminal=False, _environ={})


def lines_of(console):
    return console.file.getvalue().splitlines()


def test_the_plain_view_prints_a_line_per_case(tmp_path):
    """Mutation: let rich wrap or highlight."""
    console = plain_console(width=40)
    records = mixed()
    with open_view(console) as view:
        assert type(view) is View
        view.expect(len(records))
        view.progress("kernel 7.3: fetching", 1, 3)
        view.progress("kernel 7.3: fetching", 2, 3)
        view.note("something")
        for each in records:
            view.case_started(each.case.id)
            view.case_finished(each)
    lines = lines_of(console)
    assert lines[:2] == ["kernel 7.3: fetching ...", "something"]
    assert len(lines) == 2 + len(records), "no line is wrapped, and a progress is printed once"
    assert lines[11].startswith("fail  soft-roce-read[") and "count: faults: 208 expected" in lines[11]
    assert "\x1b" not in console.file.getvalue()


def test_summary(tmp_path):
    """Mutation: leave the report's path out; print PASSED always."""
    console = plain_console()
    View(console).summary(stored(tmp_path / "r", mixed()), tmp_path / "r" / "report.html")
    lines = lines_of(console)
    assert lines[-1] == f"report: {tmp_path}/r/report.html"
    assert lines[-2].startswith(
        "FAILED: 9 passed, 2 skipped, 1 known failure, 1 could not be run, 1 failed in "
    )
    text = "\n".join(lines)
    assert text.index("fail  soft-roce") < text.index("error soft-roce"), "worst first"
    assert "leak: QP: 2 before, 3 after" in text and "fingerprint: oops: rxe_odp_map_range_and_lock" in text
    assert "qemu 11.1.3" in text and "kernel 7.3.4" not in text.splitlines()[1]


def test_the_summary_has_the_common_environment_in_a_line(tmp_path):
    """Mutation: print each probe of the guest too, which fills most of a screen."""
    console = plain_console()
    facts = {"kernel": "7.3.4", "machine.probe hmm": "hmm_range_fault"}
    View(console).summary(stored(tmp_path / "r", [replace(each, environment=facts) for each in mixed()]))
    assert "kernel 7.3.4" in lines_of(console)


@pytest.mark.parametrize(
    ("verdicts", "word"),
    [
        (["pass"], "PASSED"),
        (["pass", "error"], "COULD NOT RUN"),
        (["skip"], "COULD NOT RUN"),
        ([], "COULD NOT RUN"),
    ],
)
def test_summary_words(tmp_path, verdicts, word):
    """Mutation: call a run passed that executed nothing."""
    console = plain_console()
    View(console).summary(stored(tmp_path / "r", [record(i, verdict) for i, verdict in enumerate(verdicts)]))
    assert lines_of(console)[-1].startswith(f"{word}: ")


def test_summary_of_an_interrupted_run(tmp_path):
    """Mutation: count missing cases as passed."""
    from harness.results.record import RunStore, read_run

    store = RunStore.create(tmp_path / "r", expected=5)
    store.add(record(0)).with_name("002-x.json").write_text("{")
    store.finish(interrupted=True)
    console = plain_console()
    View(console).summary(read_run(tmp_path / "r"))
    text = "\n".join(lines_of(console))
    assert "INTERRUPTED: 1 passed" in text and "4 of 5 cases have no result" in text
    assert "unreadable: records/002-x.json" in text


def test_many_failures_are_not_all_listed(tmp_path):
    """Mutation: list all of them."""
    console = plain_console()
    View(console).summary(stored(tmp_path / "r", [record(i, "fail", faults=2) for i in range(50)]))
    assert sum(line.startswith("fail ") for line in lines_of(console)) == 20
    assert any("and 30 more" in line for line in lines_of(console))


@pytest.mark.parametrize("kind", [View, LiveView])
def test_hostile_text_moves_no_cursor(tmp_path, kind):
    """Mutation: print the case's id without one_line: the guest can write escapes to the terminal."""
    console = Console(file=io.StringIO(), width=100, force_terminal=True, color_system=None, _environ={})
    nasty = hostile()
    with kind(console) as view:
        view.case_started(nasty.case.id)
        view.progress(nasty.plan, 1, 2)
        view.note(nasty.plan)
        if kind is LiveView:
            console.print(view._picture())
        view.case_finished(nasty)
        view.summary(stored(tmp_path / "r", [nasty]))
    text = console.file.getvalue()
    assert "\x1b[31m" not in text and "\x07" not in text and "\x00" not in text
    assert "\nok 9" not in text


def test_the_live_view_lists_running_cases():
    """Mutation: keep steps that are done; list all running cases."""
    console = Console(file=io.StringIO(), width=100, force_terminal=True, color_system=None, _environ={})
    view = LiveView(console)
    view.expect(30)
    view.progress("image: packing", 0, 0)
    view.progress("kernel", 3, 3)
    out = plain_console(100)
    out.print(view._picture())
    assert "image: packing" in out.file.getvalue() and "kernel" not in out.file.getvalue()
    for number in range(12):
        view.case_started(f"case {number}")
    view.case_finished(record(0))
    out = plain_console(100)
    out.print(view._picture())
    text = out.file.getvalue()
    assert "case 7" in text and "case 8" not in text and "and 4 more" in text
    assert "1/30  1 passed" in text and "image" not in text


CHILD = """
import signal, sys, time
from rich.console import Console
from harness.results.terminal import LiveView, open_view
# Tests in the background ignore SIGINT.
signal.signal(signal.SIGINT, signal.default_int_handler)
console = Console()
view = open_view(console)
assert type(view) is LiveView, type(view)
try:
    with view:
        view.expect(3)
        view.case_started("case one")
        print("READY", flush=True)
        time.sleep(60)
except KeyboardInterrupt:
    console.print("stopped")
    sys.exit(130)
"""


def test_ctrl_c_leaves_the_terminal_sane():
    """Use a real terminal. Mutation: do not stop the Live: the cursor stays hidden."""
    master, slave = pty.openpty()
    before = termios.tcgetattr(slave)
    environment = {**os.environ, "TERM": "xterm-256color", "COLUMNS": "100", "LINES": "30"}
    for name in ("CI", "NO_COLOR", "TTY_COMPATIBLE", "TTY_INTERACTIVE"):
        environment.pop(name, None)
    root = Path(__file__).parents[4]
    child = subprocess.Popen(
        [sys.executable, "-c", CHILD], stdin=slave, stdout=slave, stderr=slave, cwd=root, env=environment
    )
    try:
        seen = _read_until(master, b"case one")
        assert b"\x1b[?25l" in seen, "the live view hides the cursor"
        child.send_signal(signal.SIGINT)
        seen += _read_until(master, b"stopped")
        assert child.wait(10) == 130
        assert seen.rindex(b"\x1b[?25h") > seen.rindex(b"\x1b[?25l")
        assert termios.tcgetattr(slave) == before
    finally:
        child.kill()
        child.wait()
        os.close(master)
        os.close(slave)


def _read_until(descriptor, mark, timeout_s=30):
    seen, deadline = b"", time.monotonic() + timeout_s
    while mark not in seen:
        left = deadline - time.monotonic()
        assert left > 0, seen
        if select.select([descriptor], [], [], left)[0]:
            seen += os.read(descriptor, 65536)
    return seen
