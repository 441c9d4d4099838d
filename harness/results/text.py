"""Text that all reports share: a line for a record, for counts, for a time; text without control characters."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence

from harness.values.record import Record, Unknown

# Worst first, as people read.
VERDICT_ORDER = ("fail", "error", "known", "skip", "pass")

VERDICT_PLURALS = {
    "pass": "passed",
    "fail": "failed",
    "known": "known failures",
    "skip": "skipped",
    "error": "could not be run",
}

FINDINGS_LISTED = 20

# All that XML 1.0 forbids, and the other controls, which would move a terminal's cursor.
# Ref: XML 1.0 (fifth edition) production 2, Char; U+0085 and U+2028/9 end a line for some readers.
_FORBIDDEN = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff\ufffe\uffff]")
_BREAKS = re.compile("[\t\r\n\x0b\x0c\x1c-\x1e\x85\u2028\u2029]+")


def clean(text: str) -> str:
    """Escape every control character but tab and newline, and every lone surrogate, as `\\xNN`."""
    return _FORBIDDEN.sub(_escape, text.replace("\r\n", "\n").replace("\r", "\n"))


def one_line(text: str, limit: int = 0) -> str:
    """Clean `text`, replace its line breaks by spaces, cut it to `limit` characters unless that is 0."""
    line = clean(_BREAKS.sub(" ", text)).strip()
    return line if not limit or len(line) <= limit else line[: limit - 1] + "…"


def why(record: Record) -> str:
    """Write the first reason of a record in a line, with the number of the others; empty for a plain pass."""
    if not record.reasons:
        return ""
    first = record.reasons[0]
    others = len(record.reasons) - 1
    tail = f" (and {others} more)" if others else ""
    return one_line(str(first)) + tail


def _word(verdict: str, count: int) -> str:
    return "known failure" if verdict == "known" and count == 1 else VERDICT_PLURALS[verdict]


def tally(counts: Mapping[str, int]) -> str:
    """Write counts of verdicts: `12 passed, 1 failed, 3 skipped`."""
    parts = [
        f"{counts[verdict]} {_word(verdict, counts[verdict])}"
        for verdict in reversed(VERDICT_ORDER)
        if counts[verdict]
    ]
    return ", ".join(parts) or "no case"


def duration(nanoseconds: float) -> str:
    """Write a time in a suitable unit, to three digits: `412 ns`, `32.1 µs`, `1.20 s`."""
    if abs(nanoseconds) < 1000:
        return f"{nanoseconds:.0f} ns" if nanoseconds == int(nanoseconds) else f"{nanoseconds:.1f} ns"
    value = nanoseconds
    for unit in ("ns", "µs", "ms", "s"):
        if abs(value) < 999.5 or unit == "s":
            break
        value /= 1000
    digits = max(0, 3 - len(str(int(abs(value)))))
    return f"{value:.{digits}f} {unit}"


def common_environment(records: Sequence[Record]) -> dict[str, str]:
    """Collect the facts to print once for a run: those that half of the records have and none contradicts."""
    facts: dict[str, Counter[str]] = {}
    for record in records:
        for key, value in record.environment.items():
            facts.setdefault(key, Counter())[value] += 1
    return {
        key: next(iter(values))
        for key, values in facts.items()
        if len(values) == 1 and 2 * values.total() >= len(records)
    }


def own_environment(record: Record, common: Mapping[str, str]) -> dict[str, str]:
    """Collect the facts of a record that are not common to the run."""
    return {key: value for key, value in record.environment.items() if common.get(key) != value}


def by_plan(records: Sequence[Record]) -> dict[str, list[Record]]:
    """Group records by plan, in their order."""
    plans: dict[str, list[Record]] = {}
    for record in records:
        plans.setdefault(record.plan, []).append(record)
    return plans


def other_findings(record: Record) -> list[str]:
    """Write a card's findings that are not among the reasons, a line each; only the first of many."""
    reasons = {reason.text for reason in record.reasons}
    lines = [f"{one.kind}: {one.subject}: {one.detail}" for one in record.device_report.findings]
    lines = [line for line in lines if line not in reasons]
    more = [f"and {len(lines) - FINDINGS_LISTED} more findings"] if len(lines) > FINDINGS_LISTED else []
    return lines[:FINDINGS_LISTED] + more


def rules(record: Record) -> list[str]:
    """Write the effect of each rule of a case, a line each."""
    return [f"{one.kind}, {one.hits} of {one.matches}: {one.text}" for one in record.device_report.rules]


def unknown_commands(records: Sequence[Record]) -> list[Unknown]:
    """Collect the commands that a card does not know, over all records, the most frequent first."""
    counts: Counter[str] = Counter()
    stubs = {}
    for record in records:
        for one in record.device_report.unknown:
            counts[one.name] += one.count
            stubs[one.name] = one.stub
    return [Unknown(name, number, stubs[name]) for name, number in counts.most_common()]


def _escape(match: re.Match[str]) -> str:
    code = ord(match[0])
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"
