"""A judgement as plain text for a reply on a mailing list: short lines, all that is needed to try it again."""

from __future__ import annotations

import itertools
import shlex
from collections.abc import Iterator, Sequence
from pathlib import Path

from rich.cells import cell_len, chop_cells

from harness.campaign.compare import Figure
from harness.campaign.no_difference import (
    measured,
    same,
    telling,
)
from harness.campaign.outcomes import SAME, Change
from harness.campaign.regress import Judgement
from harness.results.wording import clean, one_line

WIDTH = 71
"""Columns of a line at most; a letter may take two."""

MAX_CHANGES = 8
MAX_FIGURES = 6
_TAIL = " \\"


def text(found: Judgement, command: Sequence[str], seeds: int) -> str:
    """The mail's body; `command` are the words of what was asked, to be asked again."""
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
    for change in comparison.changes[:MAX_CHANGES]:
        lines += _change(change)
    if len(comparison.changes) > MAX_CHANGES:
        lines.append(f"And {len(comparison.changes) - MAX_CHANGES} more.")
    if comparison.verdict == SAME:
        lines += [*_wrapped(same(comparison.figures, banded=True)), *_compared(comparison.figures)]
    for case in comparison.failing:
        lines += _wrapped(f"Fails with and without the patch: {case}", "", 2)
    for case in comparison.known:
        lines += _wrapped(f"Fails as known, with and without the patch: {case}", "", 2)
    if any(figure.exact for figure in comparison.figures):
        said = "Instructions are counted by QEMU (icount) from one snapshot: exact, but not hardware time."
        lines += ["", *_wrapped(said)]
    lines += ["", "To reproduce:", *_command(command)]
    return "\n".join(lines) + "\n"


def _field(name: str, value: str) -> list[str]:
    return _wrapped(value, f"{name + ':':<10}", 10)


def _change(change: Change) -> list[str]:
    place = change.case.split("/seed=")[0]
    return [*_wrapped(f"{change.verdict}: {place}", "", 2), *_wrapped(change.text, "  ", 2)]


def _compared(figures: Sequence[Figure]) -> Iterator[str]:
    """A few of the figures, without and with the patch."""
    if not figures:
        return
    chosen = telling(figures, MAX_FIGURES)
    yield ""
    yield from _wrapped("Compared, without and with the patch:")
    for case, each in itertools.groupby(chosen, lambda figure: figure.case):
        yield from _wrapped(case, "  ", 4)
        for figure in each:
            band = f", null band {figure.band:.0f}" if figure.exact and measured(figures) else ""
            yield from _wrapped(f"{figure.stage}: {_numbers(figure)}{band}", "    ", 6)
    if len(chosen) < len(figures):
        yield f"And {len(figures) - len(chosen)} figures more."


def _numbers(figure: Figure) -> str:
    if figure.exact:
        return f"{figure.base:.0f} and {figure.patched:.0f} instructions"
    return f"{figure.base / 1000:.1f} and {figure.patched / 1000:.1f} us"


def _wrapped(said: str, head: str = "", indent: int = 0) -> list[str]:
    """Lines of at most WIDTH columns: the first begins with `head`, the others with so many blanks."""
    room = WIDTH - max(indent, len(head))
    lines, empty = [head], True
    for word in one_line(said).split():
        for number, piece in enumerate(chop_cells(word, room)):
            longer = lines[-1] + piece if empty else f"{lines[-1]} {piece}"
            if number or cell_len(longer) > WIDTH:
                lines.append(" " * indent + piece)
            else:
                lines[-1] = longer
            empty = False
    return lines


def _command(words: Sequence[str]) -> list[str]:
    """The command as a shell reads it, broken between words only. One that is too long for any line has its own."""
    lines: list[str] = []
    for word in _shortened(words):
        together = f"{lines[-1]} {word}" if lines else f"  {word}"
        if lines and cell_len(together + _TAIL) > WIDTH:
            lines.append(f"  {word}")
        else:
            lines[-1:] = [together]
    return [line + _TAIL for line in lines[:-1]] + lines[-1:]


def _shortened(words: Sequence[str]) -> Iterator[str]:
    """The words, quoted; of a patch whose path would be too long only its name: who reads this has it elsewhere."""
    before = ""
    for word in words:
        option, _, value = word.partition("=") if word.startswith("--patch=") else (before, "", word)
        long = cell_len(f"  {shlex.quote(word)}{_TAIL}") > WIDTH
        if long and option == "--patch" and Path(value).exists():
            word = word.removesuffix(value) + Path(value).name
        before = word
        yield clean(shlex.quote(word))
