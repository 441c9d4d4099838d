"""Run cases: from a planned case to its record."""

from __future__ import annotations

import dataclasses
import time
from datetime import UTC, datetime

from harness.agent import checked
from harness.device.catalogue import DEVICES
from harness.errors import GuestError, Hang, SetupError, Unsupported, UsageError
from harness.kernel.packages import Kernel
from harness.machine.console import scan
from harness.machine.snapshot import Snapshot
from harness.plan import environment
from harness.plan.answer_diff import first_difference
from harness.plan.checkout import files_below
from harness.plan.options import Logs
from harness.plan.plan import Planned
from harness.plan.session import CASE, Session
from harness.plan.target import Target, VmTarget
from harness.plan.verdict import Evidence, judge
from harness.values.answer import Answer, Reply
from harness.values.case import Request
from harness.values.record import DeviceReport, Reason, Record


@dataclasses.dataclass
class Attempt:
    """One run of a case on a target: its answer, or why there is none, and what the device saw."""

    answer: Answer | None = None
    device_report: DeviceReport = dataclasses.field(default_factory=DeviceReport)
    failures: tuple[Reason, ...] = ()


class CaseRunner:
    """Runs cases on targets of a session; keeps nothing between them."""

    def __init__(self, session: Session) -> None:
        self.session = session

    def run(self, planned: Planned, twice: bool = False, no_skip: bool = False) -> tuple[Record, Logs]:
        """Run one case; return its record and the logs of its target."""
        began, started = time.monotonic(), datetime.now(UTC).isoformat(timespec="seconds")
        record = Record(planned.plan.name, planned.case, "error", started=started)
        logs = Logs()
        try:
            case = planned.case
            try:
                kernel, snapshot = self.session.prepared(
                    planned.kernel, case.device, planned.clock, case.module
                )
            finally:
                record = dataclasses.replace(record, environment=self._begun(planned))
            facts = environment.prepared(
                snapshot, self.session.qemu.version, self.session.machines.image.digest
            )
            record = dataclasses.replace(record, environment={**record.environment, **facts})
            check_needs(planned, snapshot)
            record = self._execute(record, planned, kernel, snapshot, twice, logs)
        except Unsupported as error:
            verdict = "fail" if no_skip else "skip"
            record = dataclasses.replace(record, verdict=verdict, reasons=(Reason("need", error.headline),))
        except UsageError:
            raise
        except GuestError as error:
            # Before any case, at boot or in preparation: the error holds the console.
            logs.console = "\n".join(error.evidence)
            record = dataclasses.replace(
                record, verdict="fail", reasons=(_reason(error),), symptoms=scan(error.evidence)
            )
        except SetupError as error:
            record = dataclasses.replace(record, reasons=(Reason("setup", error.render()),))
        return dataclasses.replace(record, wall_s=round(time.monotonic() - began, 3)), logs

    def target(self, planned: Planned, kernel: Kernel, snapshot: Snapshot) -> Target:
        """Open a target for one case."""
        return VmTarget(self.session, kernel, snapshot, planned.case.device)

    def _execute(
        self, record: Record, planned: Planned, kernel: Kernel, snapshot: Snapshot, twice: bool, logs: Logs
    ) -> Record:
        attempt = self._once(planned, kernel, snapshot, logs)
        if attempt.answer is not None and attempt.answer.status == "unsupported":
            raise Unsupported(attempt.answer.problem)
        failures = attempt.failures
        if twice and planned.clock == "exact" and attempt.answer is not None:
            second = self._once(planned, kernel, snapshot, Logs())
            difference = first_difference(attempt.answer, second.answer)
            if difference:
                failures += (Reason("exact", f"a second run answered differently: {difference}"),)
        device = DEVICES[planned.case.device]
        lines = logs.console.splitlines()
        seen = Evidence(
            kernel.release,
            attempt.answer,
            scan(lines),
            attempt.device_report,
            failures,
            device.scheme(kernel),
            tuple(lines),
            device.firmware_odp(kernel) if planned.case.module else {},
        )
        verdict, reasons = judge(planned, seen)
        return dataclasses.replace(
            record,
            verdict=verdict,
            reasons=reasons,
            answer=seen.answer,
            symptoms=seen.symptoms,
            device_report=seen.device_report,
        )

    def _once(self, planned: Planned, kernel: Kernel, snapshot: Snapshot, logs: Logs) -> Attempt:
        """Run the case on a target of its own; a kernel that failed gives a reason instead of an answer.

        `logs` is filled in any case.
        """
        attempt = Attempt()
        target = self.target(planned, kernel, snapshot)
        try:
            try:
                target.arm(planned.case.rules)
                reply = target.offer(case_request(planned, kernel), planned.deadline_s)
                attempt.answer = _answer(reply)
            except GuestError as error:
                attempt.failures = (_reason(error),)
            attempt.device_report = target.report()
        finally:
            logs.fill(target.close())
        return attempt

    def _begun(self, planned: Planned) -> dict[str, str]:
        kernel = self.session.fetched(planned.kernel)
        files = files_below(self.session.options.payload)
        return environment.begun(kernel, planned, files) if kernel else {}


def case_request(planned: Planned, kernel: Kernel) -> Request:
    """Return the request that carries a case to a prepared target."""
    case = dataclasses.replace(planned.case, scheme=DEVICES[planned.case.device].scheme(kernel))
    return Request(CASE, "case", case.device, case)


def check_needs(planned: Planned, snapshot: Snapshot) -> None:
    """Raise Unsupported if the machine lacks a need of its plan: `odp.rc.write` is the word `write` in `odp.rc`."""
    if DEVICES[planned.case.device].plugged:
        return  # what a card can do is known from its table: the machine has no card yet
    for need in planned.plan.needs:
        fact, _, word = need.rpartition(".")
        if not fact:
            continue  # a fact about devices of this kind, checked when the plan was read
        if word not in snapshot.facts.get(fact, "").split():
            has = snapshot.facts.get(fact, "nothing")
            raise Unsupported(f"needs {need}; {planned.case.device} on this kernel has {fact}: {has}")


def _answer(reply: Reply) -> Answer | None:
    checked(reply)
    return reply.answer


def _reason(error: GuestError) -> Reason:
    """Return a failed kernel as one line; its whole report is in the record's symptoms and the console's log."""
    kind = "hang" if isinstance(error, Hang) else "console"
    return Reason(kind, error.line)
