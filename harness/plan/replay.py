"""A stored case once more: the same kernel, modules, machine and seed, and in exact time the same end."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path

from harness.errors import UsageError
from harness.plan.difference import first_difference
from harness.plan.plan import Planned, load
from harness.plan.session import Session
from harness.values import codec
from harness.values.record import Record

PARCEL = "parcel"
"""Where a run's folder holds the modules that its machines had in the place of the kernel's own."""


@dataclass(frozen=True)
class Stored:
    """A record, and the folder of modules that it ran with, if any."""

    record: Record
    parcel: Path | None


def stored(path: Path) -> Stored:
    """Read a record's file; UsageError if it is none."""
    try:
        record = codec.loads(Record, path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UsageError(f"{path} is no record: {error}", hint="RESULTS/records/NUMBER-CASE.json") from error
    parcel = path.parent.parent / PARCEL
    return Stored(record, parcel if parcel.is_dir() else None)


def planned(record: Record, plans: Path) -> Planned:
    """The case as its plan has it now, with the seed, kernel and clock of the record."""
    path = plans / f"{record.plan}.toml"
    if not path.is_file():
        raise UsageError(f"{plans} has no plan {record.plan} any more")
    series = record.environment.get("series", "newest")
    clock = record.environment.get("clock", "")
    first = next(load(path).cases((series,), clock, (record.case.device,)), None)
    if first is None:
        raise UsageError(f"{path} has no case of {record.case.device} any more")
    return dataclasses.replace(first, case=record.case)


def difference(session: Session, record: Record, case: Planned) -> str:
    """Run the case; how its end differs from the record's, or nothing.

    Verdicts and the kinds of their reasons are compared always, answers where they are exact.
    """
    again, _ = session.run(case)
    if again.verdict != record.verdict:
        reasons = "; ".join(map(str, again.reasons))
        return f"verdict: {record.verdict}, now {again.verdict}: {reasons}".rstrip(": ")
    kinds = [sorted({reason.kind for reason in each.reasons}) for each in (record, again)]
    if kinds[0] != kinds[1]:
        return f"reasons: {', '.join(kinds[0])}, now {', '.join(kinds[1])}"
    if case.clock == "exact" and record.answer is not None and again.answer is not None:
        return first_difference(record.answer, again.answer)
    return ""
