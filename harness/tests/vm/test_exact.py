"""Exact time: a case gives the same answer each time."""

import contextlib
import os
import signal
import threading
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest

from harness.plan.answer_diff import first_difference
from harness.plan.plan import load
from harness.plan.runner import CaseRunner
from harness.tests.vm.conftest import CHECKOUT, FULL


def _first_case():
    return next(load(CHECKOUT / "testplans" / "odp-send.toml").cases(("newest",)))


def test_same_case_twice_gives_the_same_answer(session):
    """Mutation: let the guest see the host's clock, or leave the guest's hashes random."""
    record, _ = CaseRunner(session).run(_first_case(), twice=True)
    assert (record.verdict, record.reasons) == ("pass", ())
    assert record.environment["clock"] == "exact"
    again, _ = CaseRunner(session).run(_first_case())
    assert again.answer == record.answer


@pytest.mark.skipif(not FULL, reason="boots a machine of its own: ODP_FULL=1")
def test_answers_in_real_time_differ(session):
    """Check that the comparison can fail. Mutation: compare an answer with itself."""
    one, other = (CaseRunner(session).run(replace(_first_case(), clock="real"))[0] for _ in range(2))
    assert (one.verdict, other.verdict) == ("pass", "pass")
    assert first_difference(one.answer, other.answer).startswith("elapsed_ns: ")


def _children():
    """Yield the pids of QEMUs that this process has started."""
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            parent = (process / "stat").read_text().rpartition(")")[2].split()[1]
            if int(parent) == os.getpid() and b"qemu-system" in (process / "cmdline").read_bytes():
                yield int(process.name)


def _stall(over, stalled):
    while not over.wait(0.03):
        held = list(_children())
        stalled.update(held)
        for number, until in ((signal.SIGSTOP, 0.1), (signal.SIGCONT, 0)):
            for pid in held:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, number)
            time.sleep(until)


@pytest.mark.skipif(not FULL, reason="runs a case at a quarter of its speed: ODP_FULL=1")
def test_a_slow_host_gives_the_same_answer(session):
    """Mutation: let the host's clock size QEMU's TLB (exact time without libfaketime)."""
    case = next(load(CHECKOUT / "testplans" / "odp-fork-loop.toml").cases(("7.2",), devices=("soft-roce",)))
    quick, _ = CaseRunner(session).run(case)
    over, stalled = threading.Event(), Counter[int]()
    slows = threading.Thread(target=_stall, args=(over, stalled))
    slows.start()
    try:
        slow, _ = CaseRunner(session).run(case)
    finally:
        over.set()
        slows.join()
    assert (quick.verdict, slow.verdict) == ("pass", "pass")
    assert stalled.total() > 10
    assert first_difference(quick.answer, slow.answer) == ""
