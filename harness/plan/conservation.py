"""Conservation check: events of the card, works of the driver and resumes are equal.

    card: faults raised -> events -> trace: events read -> works queued -> started -> resumes -> card: faults resumed

Ref: Linux 7.3 drivers/infiniband/hw/mlx5/odp.c, mlx5_ib_eq_pf_process, mlx5_ib_eqe_pf_action
"""

from __future__ import annotations

from collections.abc import Iterator

from harness.values.answer import Trace
from harness.values.record import DeviceReport, Reason

ANSWERED = (
    *("resumed", "failed", "injected_resumed", "injected_failed"),
    *("resumes_lost", "resumes_refused", "resumes_moot"),
)
"""The card's counters of PAGE_FAULT_RESUME commands, but for those that name no open fault."""


STAGES = (("events", "events read"), ("queues", "works queued"), ("works", "works started"))
"""Stages that the driver enters once for each event."""


def check(device_report: DeviceReport, trace: Trace, scheme: str) -> Iterator[Reason]:
    """Yield reasons of the kind `count`, one for each stage where a fault was lost or came from nowhere."""
    card = {
        k.removeprefix("faults."): n for k, n in device_report.counters.items() if k.startswith("faults.")
    }
    if "raised" not in card:
        return
    memory = device_report.counters.get("odp.memory_scheme")
    if scheme and memory is not None and bool(memory) != (scheme == "memory"):
        chose = "memory" if memory else "transport"
        yield Reason("count", f"card: expected the {scheme} scheme of page faults, the driver chose {chose}")
    for problem in (*_balance(card), *_trace(card, trace)):
        yield Reason("count", f"{problem}; {ledger(card, trace)}")


def _balance(card: dict[str, int]) -> Iterator[str]:
    """Check that every fault that the card raised ends once."""
    raised, still = card["raised"], card.get("open", 0)
    if still:
        yield f"card: {still} of {raised} page faults were never resumed"
    if card.get("unknown_resumes"):
        yield f"card: {card['unknown_resumes']} resumes of faults that were not open"
    ended = sum(card.get(name, 0) for name in ("resumed", "failed", "dropped", "open"))
    if ended != raised:
        yield f"card: {raised} page faults raised, {ended} ended or open"


def _trace(card: dict[str, int], trace: Trace) -> Iterator[str]:
    """Compare card and trace; what is not traced on this kernel is not compared."""
    seen = trace.counts
    events = card.get("events", card["raised"])
    for stage, text in STAGES:
        if seen.get(stage, events) != events:
            yield f"{text}: {seen[stage]}, the card sent {events} events"
    if "resumes" not in seen:
        return
    answered = sum(card.get(name, 0) for name in (*ANSWERED, "unknown_resumes"))
    if seen["resumes"] != answered:
        yield f"resumes: {seen['resumes']} by the driver, {answered} at the card"
    # A work whose queue is destroyed, or never existed, resumes nothing.
    silent, maximum = (
        seen.get("works", 0) - seen["resumes"],
        card.get("injected_open", 0) + card.get("dropped", 0),
    )
    if "works" in seen and not 0 <= silent <= maximum:
        yield f"works without a resume: {silent}, of which {maximum} are expected"


def ledger(card: dict[str, int], trace: Trace) -> str:
    """Return all counters in a line."""
    names = (
        "raised",
        "events",
        "withheld",
        "injected",
        "resumed",
        "failed",
        "dropped",
        "open",
        "unknown_resumes",
    )
    of_card = ", ".join(f"{name} {card[name]}" for name in names if name in card)
    of_trace = ", ".join(
        f"{n} {trace.counts[n]}" for n in ("events", "queues", "works", "resumes") if n in trace.counts
    )
    return f"ledger: card {of_card} | trace {of_trace or 'nothing'}"
