"""Run a stored case again: same kernel, modules, plan, machine and seed, and in exact time the same end."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path

from harness.errors import SetupError, Unsupported, UsageError
from harness.kernel.local_tree import named
from harness.plan.answer_diff import first_difference
from harness.plan.plan import Planned, load
from harness.plan.runner import CaseRunner
from harness.plan.session import Session
from harness.results.record import PLANS
from harness.values import codec
from harness.values.record import Record

PAYLOAD = "payload"
"""The folder of a run with the modules that replaced the kernel's own in its machines."""


@dataclass(frozen=True)
class Stored:
    """A record, and beside it the folder of modules that it ran with and the copy of its plan's file, if any."""

    record: Record
    payload: Path | None
    plan: Path | None = None


def stored(path: Path) -> Stored:
    """Read a record's file; UsageError if it is none."""
    try:
        record = codec.loads(Record, path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UsageError(f"{path} is no record: {error}", hint="RESULTS/records/NUMBER-CASE.json") from error
    folder = path.parent.parent
    payload, plan = folder / PAYLOAD, folder / PLANS / f"{record.plan}.toml"
    return Stored(record, payload if payload.is_dir() else None, plan if plan.is_file() else None)


def todays(record: Record, plans: Path) -> Path:
    """Return the plan's file in a folder of plans, which may have changed; UsageError if it is gone."""
    path = plans / f"{record.plan}.toml"
    if not path.is_file():
        raise UsageError(
            f"{plans} has no plan {record.plan} any more, and no copy of it is beside the record"
        )
    return path


def planned(record: Record, path: Path) -> Planned:
    """Return the case with the expectations of its plan's file and the seed, clock and exact kernel of the record."""
    clock = record.environment.get("clock", "")
    first = next(load(path).cases((_kernel(record),), clock, (record.case.device,)), None)
    if first is None:
        raise UsageError(f"{path} has no case of {record.case.device} any more")
    return dataclasses.replace(first, case=record.case)


def _kernel(record: Record) -> str:
    """Return the kernel's release, or the tree that built it; without either the series in the name of the case."""
    if named(record.environment.get("series", "newest")):
        return record.environment["series"]
    series = record.case.id.split("/")[1:2] or ["newest"]
    return record.environment.get("kernel") or record.environment.get("series") or series[0]


def fetch(session: Session, record: Record, case: Planned) -> None:
    """Fetch the kernel of the record; SetupError that names it if it is not available any more."""
    package = record.environment.get("kernel_package", "")
    try:
        kernel = session.kernel(case.kernel, package)
    except (UsageError, Unsupported) as error:
        raise SetupError(
            f"this record's kernel is not available any more: {case.kernel}",
            [f"package: {package or 'unknown'}", error.headline, "the cache does not have it either"],
            "with a current kernel: odp-harness run PLAN --kernel SERIES",
        ) from error
    if package and kernel.version != package:
        session.say(f"{kernel.release} is from package {kernel.version} now, the record's from {package}")


def difference(runner: CaseRunner, record: Record, case: Planned) -> str:
    """Run the case; return how its end differs from the record's, or nothing.

    Verdicts and the kinds of their reasons are compared always, answers where they are exact.
    """
    again, _ = runner.run(case)
    if again.verdict != record.verdict:
        reasons = "; ".join(map(str, again.reasons))
        return f"verdict: {record.verdict}, now {again.verdict}: {reasons}".rstrip(": ")
    kinds = [sorted({reason.kind for reason in each.reasons}) for each in (record, again)]
    if kinds[0] != kinds[1]:
        return f"reasons: {', '.join(kinds[0])}, now {', '.join(kinds[1])}"
    if case.clock == "exact" and record.answer is not None and again.answer is not None:
        return first_difference(record.answer, again.answer)
    return ""
