"""A run as one HTML file that opens without a network: verdicts, cases, laws, symptoms, latency pictures."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from harness.results.latency import cost, rows, telling
from harness.results.pictures import SERIES, latency_picture
from harness.results.record import Run, count
from harness.results.wording import (
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

# A picture is some 20 kB and 20 ms; beyond this many, cases that passed show their figures only.
MAX_PICTURES = 200

_HERE = Path(__file__).parent

MACHINE = "machine."
"""What a guest said of itself: many facts, and rarely the ones that are looked for."""

OUTCOMES = {0: ("pass", "Passed"), 1: ("fail", "Failed"), 3: ("error", "Could not run")}
SYMBOLS = {"pass": "✓", "fail": "✗", "known": "≈", "skip": "–", "error": "!"}


def render(run: Run) -> str:
    """The whole page."""
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
        said=tally(count(run.records)),
        cards=cards,
        plans=_plans(run.records, cards),
        unknown=unknown_commands(run.records),
        troubled=[card for card in cards if card["record"].verdict in ("fail", "error")],
        script=script,
        script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
    )


def page(template: Path, **told: object) -> str:
    """A page of a template, which extends page.html; it has the sheet and the filters that our pages share."""
    environment = Environment(
        loader=FileSystemLoader([template.parent, _HERE]),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        # whatever text a guest wrote: no control character reaches the page
        finalize=lambda value: (
            clean(value) if isinstance(value, str) and not isinstance(value, Markup) else value
        ),
    )
    environment.filters.update(duration=duration, one_line=one_line, why=why, href=_href, count=_grouped)
    environment.globals.update(symbols=SYMBOLS, plurals=VERDICT_PLURALS, verdicts=VERDICT_ORDER)
    style = Markup((_HERE / "report.css").read_text("utf-8"))
    return environment.get_template(template.name).render(style=style, **told)


def _cards(records: Sequence[Record], common: dict[str, str]) -> list[dict[str, Any]]:
    """What the template says of each record, beyond the record."""
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
            "pictures": _pictures(record.answer, number) if number in pictured else [],
            "unpictured": number not in pictured and _has_histogram(record),
        }
        for number, record in enumerate(records, 1)
    ]


def _pictured(records: Sequence[Record]) -> set[int]:
    """The numbers of the records that get pictures: those people will look at first."""
    numbers = [number for number, record in enumerate(records, 1) if _has_histogram(record)]
    numbers.sort(key=lambda number: VERDICT_ORDER.index(records[number - 1].verdict))
    return set(numbers[:MAX_PICTURES])


def _has_histogram(record: Record) -> bool:
    return record.answer is not None and any(h.samples for h in record.answer.trace.histograms)


def _pictures(answer: Answer | None, number: int) -> list[Markup]:
    """A picture per unit, of the stages that tell most."""
    units: dict[str, list[Histogram]] = {}
    for histogram in telling(answer.trace, SERIES) if answer else ():
        units.setdefault(histogram.unit, []).append(histogram)
    drawn = [latency_picture(group, 100 * number + index) for index, group in enumerate(units.values())]
    # matplotlib has escaped the names in it
    return [Markup(svg) for svg in drawn if svg]


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
                "said": tally(counts),
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
    return f"{text}; before each round, pages lost on {workload.loss.side}: {workload.loss.method}"


def _region_text(region: Region) -> str:
    kind = "on-demand" if region.odp else "pinned"
    place = f"{region.offset} bytes into its page" if region.offset else "at the start of a page"
    mapping = region.mapping if region.prot == "write" else f"{region.mapping} read-only"
    return f"{_grouped(region.length)} bytes of {kind} {mapping} memory {place}, iova {region.iova}"


def _faults(answer: Answer | None) -> str:
    if answer is None:
        return ""
    law = next((law for law in answer.expectations if law.name.startswith("fault")), None)
    if law is None:
        return ""
    return _grouped(law.observed) if law.holds else f"{_grouped(law.observed)} of {_grouped(law.expected)}"


def _counters(counters: Mapping[str, int]) -> dict[str, list[tuple[str, int]]]:
    """A device's counters that are not 0, by their first word: those without another under the empty word."""
    groups: dict[str, list[tuple[str, int]]] = {}
    for name, number in counters.items():
        group, _, rest = name.partition(".")
        if number:
            groups.setdefault(group if rest else "", []).append((rest or group, number))
    return groups


def _typical(answer: Answer | None) -> str:
    """The mean of the whole fault, for the row of the case."""
    first = next(iter(telling(answer.trace, 1)), None) if answer else None
    if first is None:
        return ""
    return duration(first.mean) if first.unit == "ns" else f"{first.mean:.1f} {first.unit}"


def _operations(answer: Answer | None) -> str:
    """How long the rounds took."""
    if answer is None or not answer.operations_ns:
        return ""
    times = answer.operations_ns
    low, middle, high = (duration(value) for value in (min(times), percentile(times, 0.5), max(times)))
    return f"{len(times)} rounds: {low} at least, {middle} in the middle, {high} at most"


def _grouped(number: float) -> str:
    return f"{number:,}".replace(",", "\u202f")


def _href(path: str) -> str:
    """A path in the results directory as a link; no scheme survives this."""
    return quote(one_line(path), safe="/")
