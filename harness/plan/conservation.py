"""What a card says it told the driver, against what the driver was seen to do: nothing may be lost on the way.

    card: faults raised -> events -> trace: events read -> works queued -> started -> resumes -> card: faults resumed

Ref: Linux 7.3 drivers/infiniband/hw/mlx5/odp.c, mlx5_ib_eq_pf_process, mlx5_ib_eqe_pf_action
"""

from __future__ import annotations

from collections.abc import Iterator

from harness.values.answer import Trace
from harness.values.record import DeviceReport, Reason

ANSWERED = (
    *("resumed", "failed", "invented_resumed", "invented_failed"),
    *("resumes_lost", "resumes_refused", "resumes_moot"),
)
"""The card's accounts of PAGE_FAULT_RESUME commands; the one of commands that named no open fault is apart."""


STAGES = (("events", "events read"), ("queues", "works queued"), ("works", "works started"))
"""What the driver does once for each event."""


def check(device_report: DeviceReport, trace: Trace, scheme: str) -> Iterator[Reason]:
    """Reasons of the kind `law`, one for each place where something was lost or came from nowhere."""
    card = {
        k.removeprefix("faults."): n for k, n in device_report.counters.items() if k.startswith("faults.")
    }
    if "raised" not in card:
        return
    told = device_report.counters.get("odp.memory_scheme")
    if scheme and told is not None and bool(told) != (scheme == "memory"):
        chose = "memory" if told else "transport"
        yield Reason("law", f"card: expected the {scheme} scheme of page faults, the driver chose {chose}")
    for problem in (*_accounts(card), *_trace(card, trace)):
        yield Reason("law", f"{problem}; {ledger(card, trace)}")


def _accounts(card: dict[str, int]) -> Iterator[str]:
    """Every fault that a card raised ends once."""
    raised, still = card["raised"], card.get("open", 0)
    if still:
        yield f"card: {still} of {raised} page faults were never resumed"
    if card.get("unknown_resumes"):
        yield f"card: {card['unknown_resumes']} resumes of faults that were not open"
    ended = sum(card.get(name, 0) for name in ("resumed", "failed", "dropped", "open"))
    if ended != raised:
        yield f"card: {raised} page faults raised, {ended} accounted for"


def _trace(card: dict[str, int], trace: Trace) -> Iterator[str]:
    """Card and trace count the same; what is not traced here is not compared."""
    seen = trace.counts
    told = card.get("events", card["raised"])
    for stage, what in STAGES:
        if seen.get(stage, told) != told:
            yield f"{what}: {seen[stage]}, the card told of {told}"
    if "resumes" not in seen:
        return
    answered = sum(card.get(name, 0) for name in (*ANSWERED, "unknown_resumes"))
    if seen["resumes"] != answered:
        yield f"resumes: {seen['resumes']} by the driver, {answered} at the card"
    # Lawful: a work whose queue has gone, or never was, resumes nothing.
    silent, most = (
        seen.get("works", 0) - seen["resumes"],
        card.get("invented_open", 0) + card.get("dropped", 0),
    )
    if "works" in seen and not 0 <= silent <= most:
        yield f"works without a resume: {silent}, of which {most} are lawful"


def ledger(card: dict[str, int], trace: Trace) -> str:
    """All accounts in a line."""
    kept = (
        "raised",
        "events",
        "withheld",
        "invented",
        "resumed",
        "failed",
        "dropped",
        "open",
        "unknown_resumes",
    )
    of_card = ", ".join(f"{name} {card[name]}" for name in kept if name in card)
    of_trace = ", ".join(
        f"{n} {trace.counts[n]}" for n in ("events", "queues", "works", "resumes") if n in trace.counts
    )
    return f"ledger: card {of_card} | trace {of_trace or 'nothing'}"
