"""Write a result of `regress` as a plain-text mail for a kernel mailing list, for readers who do not know it."""

from __future__ import annotations

import itertools
import shlex
from collections.abc import Iterator, Sequence
from pathlib import Path

from rich.cells import cell_len, chop_cells

from harness import __version__
from harness.campaign.compare import Comparison
from harness.campaign.metrics import SEED, Metric
from harness.campaign.no_difference import needs_bands, pick, summary
from harness.campaign.outcomes import IMPROVEMENT, INCONCLUSIVE, NO_DIFFERENCE, REGRESSION, Difference
from harness.campaign.regress import RegressResult
from harness.results.text import clean, one_line

WIDTH = 71
"""Columns of a line at most; a letter may take two."""

MAX_DIFFERENCES = 8
MAX_METRICS = 6
_TAIL = " \\"
_INTRODUCTION = (
    "odp-harness built the kernel modules below with (patched) and without (baseline) this change, ran the same "
    "RDMA on-demand paging tests with both in virtual machines, and compared the outcome and the latency of each "
    "case."
)
_NOTHING_RAN = (
    "This change touches no source that is built into the kernel modules that odp-harness tests. No test ran."
)
_EXACT = (
    "Latencies are counted in guest instructions by QEMU (icount), from the same VM snapshot: exact and repeatable, "
    "but not hardware time. The noise band is how far rebuilds with no-op source changes move a metric."
)
_HEADINGS = {
    REGRESSION: "Regression",
    IMPROVEMENT: "Improvement",
    INCONCLUSIVE: "Inconclusive",
}


def text(result: RegressResult, command: Sequence[str], seeds: int) -> str:
    """Return the body of the mail; `command` is the command line that reproduces it, `seeds` its runs of a case."""
    comparison = result.comparison
    sections = (
        [f"Result: {comparison.verdict}"],
        _wrapped(_INTRODUCTION if result.cases else _NOTHING_RAN),
        [*_fields(result, seeds)],
        *([*_difference(each, result)] for each in comparison.differences[:MAX_DIFFERENCES]),
        _more(comparison),
        [*_no_difference(comparison, result.cases)],
        [*_failing_on_both(comparison)],
        ["To reproduce:", *_command(command)],
        _list("Not tested:", result.not_tested),
        _list("Differences that more builds did not confirm:", result.unconfirmed),
        _list("Notes:", result.notes),
        [*_environment(result)],
        [*_footer(comparison)],
    )
    return "\n\n".join("\n".join(section) for section in sections if section) + "\n"


def _fields(result: RegressResult, seeds: int) -> Iterator[str]:
    metrics = result.comparison.metrics
    runs = max((min(metric.runs) for metric in metrics), default=seeds)
    compiler = f" ({result.compiler})" if result.compiler else ""
    yield from _field("Patch", "; ".join(result.patches))
    yield from _field("Patch-id", result.identity or "-")
    yield from _field("Kernel", f"{result.kernel}{compiler}")
    yield from _field("Rebuilt", ", ".join(result.modules) or "no module")
    if result.cases:
        compared = len({metric.case for metric in metrics})
        times = f"{runs} baseline and {runs} patched runs each"
        yield from _field("Cases", f"{result.cases}, {times}; latency compared in {compared}")


def _field(name: str, value: str) -> list[str]:
    return _wrapped(value, f"{name + ':':<10}", 10)


def _difference(difference: Difference, result: RegressResult) -> Iterator[str]:
    """Yield case, title of its plan, evidence, how often it was measured, and the console of a failure."""
    case = SEED.sub("", difference.case)
    yield from _wrapped(f"{_HEADINGS[difference.verdict]}: {case}", "", 2)
    title = result.titles.get(case.split("/")[0], "")
    if title:
        yield from _wrapped(f"Test: {title}", "  ", 4)
    yield from _wrapped(difference.text, "  ", 4)
    metric = _metric(difference, result.comparison)
    if metric:
        yield from _wrapped(_measured(metric, difference.confirmed_builds), "  ", 4)
    for line in difference.excerpt:
        yield from _wrapped(line.strip(), "    | ", 6) if line.strip() else ()


def _metric(difference: Difference, comparison: Comparison) -> Metric | None:
    place = (difference.case, difference.metric)
    return next((each for each in comparison.metrics if (each.case, each.name) == place), None)


def _measured(metric: Metric, builds: int) -> str:
    measured = f"Measured in {metric.runs[0]} baseline and {metric.runs[1]} patched runs"
    if not builds:
        return f"{measured}."
    return f"{measured}; confirmed by {builds} more build{'s' if builds != 1 else ''} of the patched source."


def _more(comparison: Comparison) -> list[str]:
    more = len(comparison.differences) - MAX_DIFFERENCES
    return [f"And {more} more difference{'s' if more != 1 else ''}."] if more > 0 else []


def _no_difference(comparison: Comparison, cases: int) -> Iterator[str]:
    """Yield what a verdict of no difference rests on, and some of the metrics that were compared."""
    metrics = comparison.metrics
    if comparison.verdict != NO_DIFFERENCE or not cases:
        return
    yield from _wrapped(summary(metrics, banded=True))
    chosen = pick(metrics, MAX_METRICS)
    if not chosen:
        return
    yield from ("", "Compared, baseline -> patched:")
    for case, each in itertools.groupby(chosen, lambda metric: metric.case):
        yield from _wrapped(case, "  ", 4)
        for metric in each:
            band = ""
            if metric.exact and needs_bands(metrics):
                band = f"; noise band: +/-{metric.noise_band:.0f}"
            yield from _wrapped(f"{metric.title}: {metric.values}{band}", "    ", 6)
    if len(chosen) < len(metrics):
        yield f"And {len(metrics) - len(chosen)} more metrics."


def _failing_on_both(comparison: Comparison) -> Iterator[str]:
    for case in comparison.failing:
        yield from _wrapped(f"Fails on baseline and patched alike: {case}", "", 2)
    for case in comparison.known:
        yield from _wrapped(f"Known failure on baseline and patched alike: {case}", "", 2)


def _list(heading: str, items: Sequence[str]) -> list[str]:
    return [heading, *(line for item in items for line in _wrapped(item, "  ", 4))] if items else []


def _environment(result: RegressResult) -> Iterator[str]:
    facts = [f"{name} {value}" for name, value in result.environment.items() if name != "kernel"]
    if facts:
        yield "Environment:"
        yield from _wrapped("; ".join(facts), "  ", 2)
    for line in result.comparison.environment:
        yield from _wrapped(f"Baseline and patched differ in {line}", "  ", 4)


def _footer(comparison: Comparison) -> Iterator[str]:
    if any(metric.exact for metric in comparison.metrics):
        yield from _wrapped(_EXACT)
    yield from _wrapped(
        f"Case names are plan/kernel/device/parameters. Tested with odp-harness {__version__}."
    )


def _wrapped(line: str, head: str = "", indent: int = 0) -> list[str]:
    """Wrap at WIDTH columns: the first line begins with `head`, the others with `indent` blanks."""
    room = WIDTH - max(indent, len(head))
    lines, empty = [head], True
    for word in one_line(line).split():
        for number, piece in enumerate(chop_cells(word, room)):
            longer = lines[-1] + piece if empty else f"{lines[-1]} {piece}"
            if number or cell_len(longer) > WIDTH:
                lines.append(" " * indent + piece)
            else:
                lines[-1] = longer
            empty = False
    return lines


def _command(words: Sequence[str]) -> list[str]:
    """Quote the command for a shell, broken between words only. A word longer than a line has one of its own."""
    lines: list[str] = []
    for word in _with_values(list(_shortened(words))):
        together = f"{lines[-1]} {word}" if lines else f"  {word}"
        if lines and cell_len(together + _TAIL) > WIDTH:
            lines.append(f"  {word}")
        else:
            lines[-1:] = [together]
    return [line + _TAIL for line in lines[:-1]] + lines[-1:]


def _with_values(words: Sequence[str]) -> Iterator[str]:
    """Join each option with its value, where both fit into a line."""
    rest = list(words)
    while rest:
        word = rest.pop(0)
        together = f"{word} {rest[0]}" if rest else ""
        option = word.startswith("-") and "=" not in word
        if option and rest and not rest[0].startswith("-") and cell_len(f"  {together}{_TAIL}") <= WIDTH:
            rest.pop(0)
            word = together
        yield word


def _shortened(words: Sequence[str]) -> Iterator[str]:
    """Quote the words; a patch's path that is longer than a line becomes its file name: readers have it elsewhere."""
    before = ""
    for word in words:
        option, _, value = word.partition("=") if word.startswith("--patch=") else (before, "", word)
        long = cell_len(f"  {shlex.quote(word)}{_TAIL}") > WIDTH
        if long and option == "--patch" and Path(value).exists():
            word = word.removesuffix(value) + Path(value).name
        before = word
        yield clean(shlex.quote(word))
