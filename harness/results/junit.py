"""Write records as JUnit XML for CI systems: a suite per plan, a case per record."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from junitparser import Error, Failure, JUnitXml, Skipped, TestCase, TestSuite

from harness.results.record import Run
from harness.results.text import (
    by_plan,
    clean,
    common_environment,
    one_line,
    other_findings,
    own_environment,
    rules,
    why,
)
from harness.values.record import Record

# `known` is a skip here: it must neither break the build nor look passed.
_ELEMENTS = {"fail": Failure, "error": Error, "skip": Skipped, "known": Skipped}


def render(run: Run) -> str:
    """Write the whole run as one XML document."""
    common = common_environment(run.records)
    document: Any = JUnitXml("odp-harness")  # its types are partial
    for plan, records in by_plan(run.records).items():
        document.add_testsuite(_suite(plan, records, common))
    document.update_statistics()
    text = document.tostring()
    return text.decode("utf-8") if isinstance(text, bytes) else str(text)


def _suite(plan: str, records: Sequence[Record], common: dict[str, str]) -> TestSuite:
    suite = TestSuite(one_line(plan))
    started = min((record.started for record in records if record.started), default="")
    if started:
        # the format's timestamps carry no zone
        suite.timestamp = one_line(started).removesuffix("Z")
    for key, value in common.items():
        suite.add_property(one_line(key), one_line(value))
    suite.add_testcases([_case(record, common) for record in records])
    return suite


def _case(record: Record, common: dict[str, str]) -> TestCase:
    case = TestCase(one_line(record.case.id), one_line(record.plan), record.wall_s)
    element = _ELEMENTS.get(record.verdict)
    if element:
        kind = _kind(record)
        result = element(why(record) or record.verdict, one_line(kind))
        result.text = clean("\n".join(map(str, record.reasons)))
        case.result = [result]
    # a case has no properties in this format
    output = [f"{key}: {value}" for key, value in own_environment(record, common).items()]
    output += [line for symptom in record.symptoms for line in (symptom.headline, *symptom.excerpt)]
    output += [f"rule: {line}" for line in rules(record)]
    output += [f"finding: {line}" for line in other_findings(record)]
    output += [
        f"unknown command: {one.name}, {one.count} times\n{one.stub}" for one in record.device_report.unknown
    ]
    output += [f"log: {path}" for path in (record.log, record.card_log) if path]
    if output:
        case.system_out = clean("\n".join(output))
    return case


def _kind(record: Record) -> str:
    if record.verdict == "known" or not record.reasons:
        return record.verdict
    return record.reasons[0].kind
