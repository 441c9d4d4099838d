"""Write records as KTAP, the kernel's format of test results: a test per plan, a subtest per case.

Ref: Linux Documentation/dev-tools/ktap.rst, version 1
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from harness.results.record import Run, count
from harness.results.text import (
    by_plan,
    clean,
    common_environment,
    one_line,
    other_findings,
    own_environment,
    rules,
    tally,
    unknown_commands,
    why,
)
from harness.values.record import Record

# The result of each verdict, and the directive after the hash.
_RESULTS = {
    "pass": ("ok", ""),
    "fail": ("not ok", ""),
    "known": ("ok", "XFAIL"),
    "skip": ("ok", "SKIP"),
    "error": ("not ok", "ERROR"),
}


def render(run: Run) -> str:
    """Write the whole run as one KTAP document, ending in a newline."""
    plans = by_plan(run.records)
    common = common_environment(run.records)
    lines = ["KTAP version 1", f"1..{len(plans)}"]
    lines += _diagnostics(f"{key}: {value}" for key, value in common.items())
    lines += _diagnostics(f"unreadable: {problem}" for problem in run.damaged)
    if run.missing:
        lines += _diagnostics([f"{run.missing} of {run.index.expected} cases have no result"])
    for command in unknown_commands(run.records):
        lines += _diagnostics([f"unknown command: {command.name}, {command.count} times", command.stub])
    for number, (plan, records) in enumerate(plans.items(), 1):
        lines += [f"  {line}" for line in _plan_lines(records, common)]
        lines.append(_result(number, plan, *_plan_result(records)))
    return "\n".join(lines) + "\n"


def _plan_lines(records: Sequence[Record], common: dict[str, str]) -> Iterator[str]:
    yield "KTAP version 1"
    yield f"1..{len(records)}"
    for number, record in enumerate(records, 1):
        yield from _case_diagnostics(record, common)
        result, directive = _RESULTS[record.verdict]
        yield _result(number, record.case.id, result, f"{directive} {why(record)}".strip())


def _case_diagnostics(record: Record, common: dict[str, str]) -> Iterator[str]:
    yield from _diagnostics(f"rule: {line}" for line in rules(record))
    yield from _diagnostics(f"finding: {line}" for line in other_findings(record))
    if record.verdict == "pass":
        return
    yield from _diagnostics(f"{key}: {value}" for key, value in own_environment(record, common).items())
    yield from _diagnostics(map(str, record.reasons))
    for symptom in record.symptoms:
        yield from _diagnostics([f"console: {symptom.headline}", *symptom.excerpt])
    if record.log:
        yield from _diagnostics([f"log: {record.log}"])
    if record.card_log:
        yield from _diagnostics([f"card's log: {record.card_log}"])


def _plan_result(records: Sequence[Record]) -> tuple[str, str]:
    """Compute the result of a plan: not ok if any case is, a skip if all are."""
    counts = count(records)
    if counts["skip"] == len(records):
        return "ok", f"SKIP {tally(counts)}"
    failed = any(_RESULTS[record.verdict][0] == "not ok" for record in records)
    return ("not ok" if failed else "ok"), tally(counts)


def _result(number: int, name: str, result: str, comment: str) -> str:
    line = f"{result} {number} {_without_hash(one_line(name))}"
    return f"{line} # {comment}" if comment else line


def _without_hash(text: str) -> str:
    """Replace hashes in a description: a hash begins the directive."""
    return text.replace("#", "_")


def _diagnostics(texts: Iterator[str] | Sequence[str]) -> list[str]:
    return [f"# {line}" for text in texts for line in clean(text).splitlines()]
