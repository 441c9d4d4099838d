"""A judgement as plain text for a reply on a mailing list: short lines, all that is needed to try it again."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence

from harness.campaign.compare import SAME, Change
from harness.campaign.regress import Judgement

WIDTH = 71
CHANGES_MOST = 8


def text(found: Judgement, command: Sequence[str], seeds: int) -> str:
    """The mail's body; `command` is what was asked, to be asked again."""
    comparison = found.comparison
    cases = {figure.case for figure in comparison.figures}
    runs = max((min(figure.runs) for figure in comparison.figures), default=seeds)
    lines = [
        f"On-demand paging with this patch: {comparison.verdict}.",
        "",
        *_field("Patch", "; ".join(found.patches)),
        *_field("Patch id", found.identity or "-"),
        *_field("Kernel", f"{found.kernel}, {found.compiler or 'nothing built'}"),
        *_field("Rebuilt", ", ".join(found.modules) or "nothing"),
        *_field("Cases", f"{len(cases)} with figures, {runs} runs each, with and without the patch"),
        *(line for note in found.notes for line in _field("Note", note)),
        "",
    ]
    for change in comparison.changes[:CHANGES_MOST]:
        lines += _change(change)
    if len(comparison.changes) > CHANGES_MOST:
        lines.append(f"And {len(comparison.changes) - CHANGES_MOST} more.")
    if comparison.verdict == SAME:
        lines += textwrap.wrap(
            "No new failure, symptom or leak; no latency moved beyond its null band.", WIDTH
        )
    for case in comparison.failing:
        lines += textwrap.wrap(f"Fails with and without the patch: {case}", WIDTH, subsequent_indent="  ")
    if any(figure.exact for figure in comparison.figures):
        said = "Instructions are counted by QEMU (icount) from one snapshot: exact, but not hardware time."
        lines += ["", *textwrap.wrap(said, WIDTH)]
    again = textwrap.wrap(" ".join(command), WIDTH - 4, break_long_words=False, break_on_hyphens=False)
    lines += ["", "To reproduce:", *(f"  {line}" + " \\" * (line != again[-1]) for line in again)]
    return "\n".join(lines) + "\n"


def _field(name: str, value: str) -> list[str]:
    return textwrap.wrap(f"{name + ':':<10}{value}", WIDTH, subsequent_indent=" " * 10)


def _change(change: Change) -> list[str]:
    place = change.case.split("/seed=")[0]
    said = textwrap.wrap(f"{change.text}", WIDTH - 2, initial_indent="  ", subsequent_indent="  ")
    head = textwrap.wrap(f"{change.verdict}: {place}", WIDTH, subsequent_indent="  ", break_on_hyphens=False)
    return [*head, *said]
