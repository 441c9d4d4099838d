"""Run rdma-core's own Python tests on a device, and report each result as it comes.

A forked child runs them one after the other, as rdma-core's run_tests.py does. If it dies (a signal) or hangs, only the
current test fails: the next child continues after it.
Ref: rdma-core 56 tests/run_tests.py, tests/args_parser.py
"""

from __future__ import annotations

import fnmatch
import gc
import json
import os
import select
import signal
import subprocess
import sys
import time
import traceback
import unittest
from pathlib import Path
from typing import Any, Callable, Dict, Iterator, List, NoReturn, Tuple

from harness.guest.errors import WorkFailed
from harness.values.upstream import Selection, UpstreamTest

MOUNT = Path("/run/upstream")
OUTPUT = Path("/tmp/upstream-output")
HUGE_PAGES = Path("/proc/sys/vm/nr_hugepages")
DISK_S = 30.0
KILLED_S = 10.0
MAX_DETAIL = 8000

Report = Callable[[UpstreamTest], None]


def run(selection: Selection, device: str, report: Report) -> Dict[str, str]:
    """Run the selected tests on an RDMA device; return the number of tests and of children."""
    _mount(selection.disk)
    HUGE_PAGES.write_text("32")
    chosen = chosen_of(load(device), selection.patterns)
    number, children = selection.first, 0
    while number < len(chosen):
        number = _Child(chosen, number, selection.timeout_s, report).watch()
        children += 1
    return {"tests": str(len(chosen)), "children": str(children)}


def _mount(serial: str) -> None:
    """Mount the disk of that serial number, which is hot-plugged: wait for it."""
    if MOUNT.is_dir():
        return
    until = time.monotonic() + DISK_S
    while True:
        disks = [path for path in Path("/sys/block").glob("vd*") if _serial(path) == serial]
        if disks and Path("/dev", disks[0].name).exists():
            break
        if time.monotonic() > until:
            raise WorkFailed(f"no disk {serial!r} after {DISK_S:g} s")
        time.sleep(0.02)
    MOUNT.mkdir()
    command = ("mount", "-t", "erofs", "-o", "ro", f"/dev/{disks[0].name}", str(MOUNT))
    subprocess.run(command, stdin=subprocess.DEVNULL, check=True)


def _serial(block: Path) -> str:
    try:
        return (block / "serial").read_text().strip()
    except OSError:
        return ""


def load(device: str) -> List[unittest.TestCase]:
    """Load every test, in the order in which unittest runs them."""
    sys.path[:0] = [str(MOUNT), str(MOUNT / "tests")]
    # Modules that tests import and the image lacks are there, too.
    sys.path.append(str(MOUNT / "usr/lib/python3/dist-packages"))
    sys.dont_write_bytecode = True
    import args_parser  # type: ignore[import-not-found]

    before, sys.argv = sys.argv, ["run_tests.py", "--dev", device]
    try:
        args_parser.parser.parse_args()
    finally:
        sys.argv = before
    import tests  # type: ignore[import-not-found]

    return list(_flat(unittest.defaultTestLoader.loadTestsFromModule(tests)))


def _flat(suite: Any) -> Iterator[unittest.TestCase]:
    for item in suite:
        if isinstance(item, unittest.TestSuite):
            yield from _flat(item)
        else:
            yield item


def chosen_of(every: List[unittest.TestCase], patterns: Tuple[str, ...]) -> List[unittest.TestCase]:
    """Return the tests whose id matches one of the patterns."""
    globs = [pattern if "*" in pattern else f"*{pattern}*" for pattern in patterns or ("*",)]
    return [test for test in every if any(fnmatch.fnmatchcase(test.id(), pattern) for pattern in globs)]


class _Child:
    """A process that runs the tests from `first` on, and its watcher."""

    def __init__(self, chosen: List[unittest.TestCase], first: int, timeout_s: float, report: Report) -> None:
        self._chosen, self._next, self._timeout_s, self._report = chosen, first, timeout_s, report
        self._began = time.monotonic()
        self._buffer = b""
        self._output, write_end = os.pipe()
        self._pid = os.fork()
        if self._pid == 0:
            os.close(self._output)
            _child_main(chosen[first:], first, write_end)
        os.setpgid(self._pid, self._pid)
        os.close(write_end)

    def watch(self) -> int:
        """Report results until the child ends or hangs; return the number of the test to go on with."""
        while True:
            left_s = self._began + self._timeout_s - time.monotonic()
            ready = select.select([self._output], [], [], max(left_s, 0))[0]
            if not ready:
                self._blame(f"no end after {self._timeout_s:g} s{self._kill()}")
                break
            data = os.read(self._output, 1 << 16)
            if not data:
                status = os.waitpid(self._pid, 0)[1]
                if self._next < len(self._chosen):
                    self._blame(f"the test's process ended with {_ending(status)}")
                break
            self._take(data)
        os.close(self._output)
        return self._next

    def _take(self, data: bytes) -> None:
        *lines, self._buffer = (self._buffer + data).split(b"\n")
        for line in lines:
            test = UpstreamTest(**json.loads(line))
            if test.outcome == "started":
                self._began = time.monotonic()
            else:
                self._next = test.number + 1
            self._report(test)

    def _blame(self, why: str) -> None:
        """Report the current test, or the next one, as failed for that reason."""
        name = self._chosen[self._next].id()
        self._report(
            UpstreamTest(self._next, name, "fail", why, _printed(), round(time.monotonic() - self._began, 3))
        )
        self._next += 1

    def _kill(self) -> str:
        """Kill the child's process group; return a remark if it does not go."""
        os.killpg(self._pid, signal.SIGKILL)
        until = time.monotonic() + KILLED_S
        while time.monotonic() < until:
            if os.waitpid(self._pid, os.WNOHANG)[0]:
                return ""
            time.sleep(0.02)
        return ", and it cannot be killed"


def _ending(status: int) -> str:
    if os.WIFSIGNALED(status):
        return f"signal {os.WTERMSIG(status)}"
    return f"status {os.WEXITSTATUS(status)}"


def _child_main(chosen: List[unittest.TestCase], first: int, fd: int) -> NoReturn:
    """Run the tests in the child."""
    status = 1
    try:
        output = os.open(OUTPUT, os.O_CREAT | os.O_RDWR | os.O_TRUNC | os.O_APPEND)
        for descriptor in (1, 2):
            os.dup2(output, descriptor)
        # The agent disables the collector; tests rely on it.
        gc.enable()
        for number, test in enumerate(chosen, first):
            os.ftruncate(output, 0)
            _write(fd, UpstreamTest(number, test.id(), "started"))
            _write(fd, _run(number, test))
        status = 0
    except BaseException:  # the parent reports that it ended, with the printed traceback
        traceback.print_exc()
    finally:
        os._exit(status)


def _write(fd: int, test: UpstreamTest) -> None:
    data = json.dumps(vars(test)).encode() + b"\n"
    while data:
        data = data[os.write(fd, data) :]


def _printed() -> str:
    try:
        return OUTPUT.read_text(errors="replace")[-MAX_DETAIL:]
    except OSError:
        return ""


def _run(number: int, test: unittest.TestCase) -> UpstreamTest:
    began = time.monotonic()
    result = unittest.TestResult()
    # A suite of one runs the fixtures of the test's class and module, too.
    unittest.TestSuite([test]).run(result)
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    wall_s = round(time.monotonic() - began, 3)
    failed = [text for _, text in (*result.errors, *result.failures)]
    if failed:
        detail = "\n".join((*failed, _printed()))[-MAX_DETAIL:]
        return UpstreamTest(number, test.id(), "fail", _reason(failed[0]), detail, wall_s)
    if result.unexpectedSuccesses:
        return UpstreamTest(number, test.id(), "fail", "passed, and was expected to fail", "", wall_s)
    if result.skipped:
        return UpstreamTest(number, test.id(), "skip", " ".join(result.skipped[0][1].split()), "", wall_s)
    return UpstreamTest(number, test.id(), "pass", "", "", wall_s)


def _reason(text: str) -> str:
    """Return the message at the end of a traceback, in one line."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    last = next((i for i in reversed(range(len(lines))) if ": " in lines[i][:60]), len(lines) - 1)
    return " ".join(lines[last:])[:400] if lines else "failed"
