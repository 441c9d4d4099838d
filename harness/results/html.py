"""A run as one HTML file that needs no network: verdicts, cases, expected counts, symptoms, latency pictures."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

from markupsafe import Markup

from harness.results.latency import cost, longest_stages, rows
from harness.results.record import Run, count
from harness.results.svg import SERIES, latency_picture
from harness.results.text import (
    FINDINGS_LISTED,
    VERDICT_ORDER,
    VERDICT_PLURALS,
    by_plan,
    clean,
    common_environment,
    duration,
    one_line,
    own_environment,
    tally,
    unknown_commands,
    why,
)
from harness.values.answer import Answer
from harness.values.case import Region, Workload
from harness.values.histogram import Histogram, percentile
from harness.values.record import Record

# A picture is some 3 kB; beyond this many, cases that passed show their numbers only.
MAX_PICTURES = 200

_HERE = Path(__file__).parent

MACHINE = "machine."
"""Prefix of the facts that a guest reports of itself: many, and rarely of interest."""

# Each fault is in one of these counts: that of its side, or the first where sides cannot be distinguished.
FAULT_COUNTS = ("faults", "faults_local", "faults_remote", "faults_elsewhere")

OUTCOMES = {0: ("pass", "Passed"), 1: ("fail", "Failed"), 3: ("error", "Could not run")}
SYMBOLS = {"pass": "✓", "fail": "✗", "known": "≈", "skip": "–", "error": "!"}


def render(run: Run) -> str:
    """Render the report of a run."""
    outcome, word = OUTCOMES[run.status]
    if not run.records:
        word = "Nothing ran"
    script = Markup((_HERE / "report.js").read_text("utf-8"))
    common = common_environment(run.records)
    cards = _cards(run.records, common)
    return page(
        _HERE / "report.html",
        run=run,
        outcome=outcome,
        word=word,
        common=common,
        facts={key: v for key, v in (common | run.index.about).items() if not key.startswith(MACHINE)},
        machine={key[len(MACHINE) :]: v for key, v in common.items() if key.startswith(MACHINE)},
        counts={verdict: number for verdict, number in _ordered(count(run.records)).items() if number},
        tally=tally(count(run.records)),
        cards=cards,
        plans=_plans(run.records, cards),
        unknown=unknown_commands(run.records),
        troubled=[card for card in cards if card["record"].verdict in ("fail", "error")],
        script=script,
        script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
    )


def page(template: Path, **values: object) -> str:
    """Render a template that extends page.html, with the style sheet and the filters of all our pages."""
    # Imported here: it takes 0.2 s, which every command would pay.
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader([template.parent, _HERE]),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        # no control character of a guest's text reaches the page
        finalize=lambda value: (
            clean(value) if isinstance(value, str) and not isinstance(value, Markup) else value
        ),
    )
    environment.filters.update(duration=duration, one_line=one_line, why=why, href=_href, count=_grouped)
    environment.globals.update(symbols=SYMBOLS, plurals=VERDICT_PLURALS, verdicts=VERDICT_ORDER)
    style = Markup((_HERE / "report.css").read_text("utf-8"))
    return environment.get_template(template.name).render(style=style, **values)


def _cards(records: Sequence[Record], common: dict[str, str]) -> list[dict[str, Any]]:
    """Collect what the template shows of each record, besides the record."""
    pictured = _pictured(records)
    return [
        {
            "number": number,
            "record": record,
            "own": own_environment(record, common),
            "workload": _workload_text(record.case.workload),
            "faults": _faults(record.answer),
            "counters": _counters(record.device_report.counters),
            "findings": record.device_report.findings[:FINDINGS_LISTED],
            "typical": _typical(record.answer),
            "rows": rows(record.answer.trace) if record.answer else (),
            "cost": cost(record.answer.trace) if record.answer else "",
            "operations": _operations(record.answer),
            "pictures": _pictures(record.answer) if number in pictured else [],
            "unpictured": number not in pictured and _has_histogram(record),
        }
        for number, record in enumerate(records, 1)
    ]


def _pictured(records: Sequence[Record]) -> set[int]:
    """Choose the numbers of the records that get pictures: failures first."""
    numbers = [number for number, record in enumerate(records, 1) if _has_histogram(record)]
    numbers.sort(key=lambda number: VERDICT_ORDER.index(records[number - 1].verdict))
    return set(numbers[:MAX_PICTURES])


def _has_histogram(record: Record) -> bool:
    return record.answer is not None and any(h.samples for h in record.answer.trace.histograms)


def _pictures(answer: Answer | None) -> list[Markup]:
    """Draw a picture per unit, of the stages that took longest."""
    units: dict[str, list[Histogram]] = {}
    for histogram in longest_stages(answer.trace, SERIES) if answer else ():
        units.setdefault(histogram.unit, []).append(histogram)
    return [latency_picture(group) for group in units.values()]


def _plans(records: Sequence[Record], cards: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    plans = []
    for plan, of_plan in by_plan(records).items():
        members = {id(record) for record in of_plan}
        counts = count(of_plan)
        plans.append(
            {
                "name": plan,
                "cards": [card for card in cards if id(card["record"]) in members],
                "counts": {verdict: number for verdict, number in _ordered(counts).items() if number},
                "tally": tally(counts),
            }
        )
    return plans


def _ordered(counts: dict[str, int]) -> dict[str, int]:
    return {verdict: counts[verdict] for verdict in VERDICT_ORDER}


def _workload_text(workload: Workload) -> str:
    sides = {"both sides": workload.local}
    if workload.local != workload.remote:
        sides = {"local": workload.local, "remote": workload.remote}
    regions = "; ".join(f"{side}: {_region_text(region)}" for side, region in sides.items())
    text = f"{workload.rounds} × {workload.operation.replace('_', ' ')}; {regions}"
    if workload.loss.method == "none":
        return f"{text}; pages stay present"
    return f"{text}; pages made absent on {workload.loss.side} before each round: {workload.loss.method}"


def _region_text(region: Region) -> str:
    kind = "on-demand" if region.odp else "pinned"
    place = f"{region.offset} bytes into its page" if region.offset else "at the start of a page"
    mapping = region.mapping if region.prot == "write" else f"{region.mapping} read-only"
    return f"{_grouped(region.length)} bytes of {kind} {mapping} memory {place}, iova {region.iova}"


def _faults(answer: Answer | None) -> str:
    """Write the faults of a case, added up over all sides; if that is not the expected number, that one too."""
    counts = [count for count in answer.expectations if count.name in FAULT_COUNTS] if answer else []
    if not counts:
        return ""
    observed = _grouped(sum(count.observed for count in counts))
    if all(count.holds for count in counts):
        return observed
    return f"{observed} of {_grouped(sum(count.expected for count in counts))}"


def _counters(counters: Mapping[str, int]) -> dict[str, list[tuple[str, int]]]:
    """Group a device's counters that are not 0 by their first word; under "" those of one word."""
    groups: dict[str, list[tuple[str, int]]] = {}
    for name, number in counters.items():
        group, _, rest = name.partition(".")
        if number:
            groups.setdefault(group if rest else "", []).append((rest or group, number))
    return groups


def _typical(answer: Answer | None) -> str:
    """Write the mean of the whole fault, for the row of the case."""
    first = next(iter(longest_stages(answer.trace, 1)), None) if answer else None
    if first is None:
        return ""
    return duration(first.mean) if first.unit == "ns" else f"{first.mean:.1f} {first.unit}"


def _operations(answer: Answer | None) -> str:
    """Write the duration of the rounds."""
    if answer is None or not answer.operations_ns:
        return ""
    times = answer.operations_ns
    low, middle, high = (duration(value) for value in (min(times), percentile(times, 0.5), max(times)))
    return f"{len(times)} rounds: minimum {low}, median {middle}, maximum {high}"


def _grouped(number: float) -> str:
    return f"{number:,}".replace(",", "\u202f")


def _href(path: str) -> str:
    """Quote a path in the results directory as a link; a scheme does not survive."""
    return quote(one_line(path), safe="/")
