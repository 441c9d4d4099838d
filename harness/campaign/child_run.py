"""Run the cases of a request in a pytest child and stop it early when cases hang or fail."""

from __future__ import annotations

import contextlib
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from harness.campaign.outcomes import FAILED, how_ended
from harness.campaign.question import RegressRequest
from harness.errors import SetupError
from harness.plan.pytest_args import RunRequest
from harness.plan.replay import PAYLOAD
from harness.plan.session import Session
from harness.results.record import Run, read_run

POLL_S = 0.5
MAX_HANGS = 2
"""A run stops after so many hung cases: each costs its timeout, and the kernel is known to hang."""
STOP_TIMEOUT_S = 60.0
RESUME_HINT = "run the same command with --resume and its folder of results to continue"
BROKEN = (pytest.ExitCode.INTERNAL_ERROR, pytest.ExitCode.USAGE_ERROR)


@dataclass(frozen=True)
class ChildRun:
    """One pytest child: a request's cases on `devices`, with the modules in `results`.

    `blocks` are the modules whose executed blocks are logged; `resumed`: `results` holds records of an earlier run.
    """

    request: RegressRequest
    name: str
    results: Path
    devices: Sequence[str]
    blocks: Sequence[str]
    resumed: bool

    def arguments(self, session: Session) -> list[str]:
        """List the arguments for pytest."""
        options, request = session.options, self.request
        values: dict[str, object] = {
            "cache": session.store.root,
            "mirror": options.mirror,
            "vm_images": options.images,
            "image": options.image,
            "seeds": request.seeds,
            "cut": request.cut,
            "payload": self.results / PAYLOAD,
            "time": "real" if request.effect else None,
            "blocks": self.blocks,
            "ruled_once": True,
            "icount": request.icount and not request.effect,
            "resume": self.results if self.resumed else None,
        }
        return RunRequest(
            request.plans,
            self.results,
            [request.kernel],
            self.devices,
            values,
            (),
            request.expression,
            request.jobs,
        ).arguments()


def run_child(session: Session, run: ChildRun) -> None:
    """Run the cases; SetupError if none was executed, or if the child ended before all were."""
    log = run.results / "pytest.log"
    with log.open("wb") as output:
        argv = [sys.executable, "-m", "pytest", *run.arguments(session)]
        child = session.host.start(argv, stdout=output, stderr=output)
    try:
        stopped = follow(session, run, lambda: child.poll() is not None)
        if stopped:
            child.send_signal(signal.SIGINT)
            with contextlib.suppress(subprocess.TimeoutExpired):
                child.wait(STOP_TIMEOUT_S)
    finally:
        session.host.stop(child)
    output_lines = log.read_text(errors="replace").splitlines()[-10:]
    _check(run, child.returncode, stopped, output_lines)


def _check(run: ChildRun, status: int, stopped: bool, output: Sequence[str]) -> None:
    """Raise SetupError unless the records of the run are all there; one that was `stopped` may lack some."""
    results = read_run(run.results) if (run.results / "records").is_dir() else None
    if results is None or not results.records or status in BROKEN:
        raise SetupError(f"no case was executed with the {run.name} modules", output)
    if not stopped and (not results.index.finished or results.index.interrupted):
        text = f"the run with the {run.name} modules ended early (exit status {status})"
        raise SetupError(text, output, RESUME_HINT)
    if results.damaged or (results.missing and not stopped):
        text = f"{results.missing} cases of the run with the {run.name} modules have no result"
        raise SetupError(text, [*results.damaged, *output], RESUME_HINT)


def follow(session: Session, run: ChildRun, ended: Callable[[], bool]) -> bool:
    """Wait until the child has `ended` and report progress ten times.

    Return True early once MAX_HANGS cases hung or `failures` of the request failed; a known failure is none.
    """
    reported = seen = 0
    while not ended():
        time.sleep(POLL_S)
        records = run.results / "records"
        number = len(list(records.iterdir())) if records.is_dir() else 0
        if number == seen:
            continue
        seen = number
        results = read_run(run.results)
        reason = _stop_reason(results, run.request.failures)
        if reason:
            session.say(f"{run.name}: {reason}, skipping the rest")
            return True
        expected = results.index.expected
        if expected and len(results.records) * 10 // expected > reported:
            reported = len(results.records) * 10 // expected
            session.say(f"{run.name}: {len(results.records)} of {expected} cases")
    return False


def _stop_reason(results: Run, failures: int) -> str:
    failed = [record for record in results.records if how_ended(record) == FAILED]
    if sum(any(reason.kind == "hang" for reason in record.reasons) for record in failed) >= MAX_HANGS:
        return f"{MAX_HANGS} cases hung"
    return f"{len(failed)} cases failed" if failures and len(failed) >= failures else ""
