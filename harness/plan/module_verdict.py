"""Check the kernel module's report: its counters, and the capability pages that it read.

Module, driver and card see the same page faults from three places, so their counts must agree; so must the
capability pages that the module reads and those that firmware and verbs state.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from harness.values.module import ModuleReport, ModuleUse
from harness.values.record import DeviceReport

RESUMED = ("resumed", "failed", "injected_resumed", "injected_failed", "resumes_lost")
REFUSED = ("unknown_resumes", "resumes_refused")
ZERO = ("lost_memory", "overruns", "undecoded", "unknown")
"""Statistics that are 0 unless a plan expects otherwise."""


def check(
    use: ModuleUse,
    expected: Mapping[str, int],
    refused: str,
    report: ModuleReport | None,
    device_report: DeviceReport,
    firmware: Mapping[str, Mapping[str, tuple[str, ...]]],
) -> Iterator[str]:
    """Yield a line for each problem. `expected` are counters of the plan, `refused` is a text in the module's error."""
    if report is None:
        yield "no report"
        return
    if refused not in report.refused or bool(refused) != bool(report.refused):
        yield f"mode {use.mode}: expected refusal {refused!r}, got {report.refused!r}"
    yield from _caps(report, firmware, use)
    card = {
        k.removeprefix("faults."): n for k, n in device_report.counters.items() if k.startswith("faults.")
    }
    if not report.refused:
        yield from _counters(use, report, card, expected)
    if any(outcome.kind == "drawn-events" for outcome in device_report.rules) and report.drawn != card.get(
        "injected", 0
    ):
        yield f"events with random fields: {report.drawn} right, the card sent {card.get('injected', 0)}"
    counters = {**report.stats, **report.answers, "heard": report.heard, "drawn": report.drawn}
    for name, count in expected.items():
        counted = counters.get(name, 0)
        if counted != count:
            yield f"{name}: expected {count}, counted {counted}"
    if report.difference:
        yield f"an event is not what the card raised: {report.difference}"


def _counters(
    use: ModuleUse, report: ModuleReport, card: Mapping[str, int], expected: Mapping[str, int]
) -> Iterator[str]:
    """Compare the counters of card and module."""
    stats = report.stats

    def total(names: tuple[str, ...]) -> int:
        return sum(card.get(name, 0) for name in names)

    pairs = {
        "observe": (("observed", card.get("events", 0)), ("observed_resumes", total(RESUMED + REFUSED))),
        "own": (
            ("events", card.get("events", 0)),
            ("resumes", total(RESUMED)),
            ("resumes_refused", total(REFUSED)),
        ),
    }
    for name, count in pairs.get(use.mode, ()):
        if name not in expected and stats.get(name, 0) != count:
            yield f"{name}: {stats.get(name, 0)}, the card reports {count}"
    for name in ZERO:
        if name not in expected and stats.get(name, 0):
            yield f"{name}: {stats[name]}"


def _caps(
    report: ModuleReport, firmware: Mapping[str, Mapping[str, tuple[str, ...]]], use: ModuleUse
) -> Iterator[str]:
    """Compare both capability pages with firmware and mlx5_core's copies, the current one with verbs, too."""
    caps = report.caps
    for which in ("max", "cur"):
        if caps.get(f"{which}.driver") != "same":
            yield f"caps: mlx5_core's copy of the {which} page differs from the device's"
        for scheme in ("transport", "memory"):
            stated = firmware.get(scheme, {})
            rows = {row for row in stated if row != "general"}
            prefix = f"{which}.{scheme}."
            rows |= {name.removeprefix(prefix) for name in caps if name.startswith(prefix)}
            for row in sorted(rows):
                read, expected = caps.get(prefix + row, ""), " ".join(stated.get(row, ()))
                if set(read.split()) != set(expected.split()):
                    yield f"caps: {prefix}{row}: firmware states {expected or 'nothing'}, the module found {read}"
    chosen = caps.get("cur.chosen", "")
    for row in ("rc", "uc", "ud", "xrc") if use.paging else ():
        module = {word.replace("receive", "recv") for word in caps.get(f"cur.{chosen}.{row}", "").split()}
        verbs = set(caps.get(f"verbs.{row}", "").split())
        if verbs - module or (row in ("rc", "ud") and module - verbs):
            yield f"caps: {row}: verbs say {' '.join(sorted(verbs))}, the module {' '.join(sorted(module))}"
