"""Measure the cost of a verdict of `regress` against the compiler alone, and its false alarms on no-op changes."""

from __future__ import annotations

import secrets
import statistics
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from harness.bench.measurement import Measurement, Stopped
from harness.campaign import noise, noop_changes
from harness.campaign.builds import build_modules, copy_sources
from harness.campaign.change import KernelTree
from harness.campaign.outcomes import NO_DIFFERENCE
from harness.campaign.question import SIDES, RegressRequest
from harness.campaign.regress import regress
from harness.campaign.result_cache import ModuleRun, run_cases
from harness.kernel.packages import Kernel
from harness.kernel.source import source
from harness.kernel.subsystems import Part
from harness.plan.session import Session

MAKES = 3


@dataclass(frozen=True)
class RegressCost(Measurement):
    """The cost on one part of the kernel, with `seeds` runs of each case.

    `make_s` is the compiler's time for both sides, clean, the median of MAKES; `verdict_s` is from patch to verdict
    including compiler and diff coverage, with the objects and records of the baseline and the noise bands cached.
    `false_alarms` are verdicts other than "no difference" on `noop_changes` different no-op changes; `unconfirmed`
    counts those with a metric that moved in one build and not in others. `noise_bands_instructions` are by metric.
    """

    kernel: str
    module: str
    cases: int
    seeds: int
    make_s: float
    verdict_s: float
    ratio_to_make: float
    noop_changes: int
    false_alarms: int
    alarms: tuple[str, ...]
    unconfirmed: int
    noise_bands_instructions: Mapping[str, float]


@dataclass(frozen=True)
class _Verdict:
    """The verdict on one no-op change: `alarm` is empty when it is "no difference"."""

    wall_s: float
    cases: int
    alarm: str
    unconfirmed: bool


def measure(session: Session, request: RegressRequest, part: Part, changes: int) -> RegressCost:
    """Test `changes` no-op changes, each built and prepared again. `request.results` is filled.

    Ctrl-C raises Stopped with the measurement of those that were tested, if any was.
    """
    kernel = session.kernel(request.kernel)
    stock = source(kernel, session.archive)
    built = build_modules(session, kernel, stock, [part], lines=False)
    records = run_cases(session, ModuleRun(request, kernel, built.files, [part], SIDES[0]))
    bands = noise.noise_bands(session, noise.Baseline(request, kernel, stock, [part], records))
    makes_s = [_make(session, kernel, stock, part) for _ in range(MAKES)]
    verdicts: list[_Verdict] = []

    def measurement() -> RegressCost:
        return _cost(kernel, part, request.seeds, makes_s, verdicts, bands)

    try:
        for noop in noop_changes.variants(changes):
            verdicts.append(_verdict(session, request, part, stock, noop))
            text = verdicts[-1].alarm or f"{noop}: {NO_DIFFERENCE}"
            session.say(f"{len(verdicts)} of {changes}: {text}")
    except KeyboardInterrupt as stop:
        if not verdicts:
            raise
        raise Stopped(measurement()) from stop
    return measurement()


def _cost(
    kernel: Kernel,
    part: Part,
    seeds: int,
    makes_s: Sequence[float],
    verdicts: Sequence[_Verdict],
    bands: Mapping[str, float],
) -> RegressCost:
    make_s = statistics.median(makes_s)
    verdict_s = statistics.median(each.wall_s for each in verdicts)
    alarms = tuple(each.alarm for each in verdicts if each.alarm)
    return RegressCost(
        kernel.release,
        part.modules[0],
        verdicts[-1].cases,
        seeds,
        round(2 * make_s, 1),
        round(verdict_s, 1),
        round(verdict_s / (2 * make_s), 2),
        len(verdicts),
        len(alarms),
        alarms,
        sum(each.unconfirmed for each in verdicts),
        bands,
    )


def _verdict(
    session: Session, request: RegressRequest, part: Part, stock: Path, noop: noop_changes.NoopChange
) -> _Verdict:
    own = replace(request, results=request.results / str(noop).replace(" ", "-"))
    with session.ledger.scratch_folder("noop") as tree:
        copy_sources(stock, [part], tree)
        noop.apply(tree / part.folder, part)
        _make_unique(tree / part.folder / part.first)
        began = time.monotonic()
        result = regress(session, own, KernelTree(tree))
        wall_s = time.monotonic() - began
    comparison = result.comparison
    why = [each.text for each in comparison.differences] or result.notes
    alarm = f"{noop}: {comparison.verdict}: {'; '.join(why)}"
    return _Verdict(
        wall_s,
        len({metric.case for metric in comparison.metrics}),
        "" if comparison.verdict == NO_DIFFERENCE else alarm,
        bool(result.unconfirmed),
    )


def _make(session: Session, kernel: Kernel, stock: Path, part: Part) -> float:
    """Return the time of a clean make of the part, in seconds."""
    with session.ledger.scratch_folder("noop") as tree:
        copy_sources(stock, [part], tree)
        _make_unique(tree / part.folder / part.first)
        began = time.monotonic()
        build_modules(session, kernel, tree, [part], lines=False, clean=True)
        return time.monotonic() - began


def _make_unique(file: Path) -> None:
    """Add a random modinfo entry to a source file, so that neither its build nor its records are cached."""
    file.write_text(f'{file.read_text()}\nMODULE_INFO(odp_harness, "{secrets.token_hex(4)}");\n')
