"""Noise band: how far no-op source changes move each metric, and the confirmation of what moved further."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from harness.campaign.builds import build_modules, copy_sources
from harness.campaign.compare import Comparison, compare
from harness.campaign.noop_changes import BAND, CONFIRM, NoopChange
from harness.campaign.outcomes import IMPROVEMENT, REGRESSION, Difference, overall
from harness.campaign.question import SIDES, RegressRequest
from harness.campaign.result_cache import DoNotCache, ModuleRun, cached_key, code, run_cases
from harness.errors import SetupError
from harness.kernel.packages import Kernel
from harness.kernel.subsystems import Part
from harness.plan.session import Session
from harness.store import digest
from harness.values.record import Record

MAX_SEEDS = 4
"""Runs of a case of a no-op build."""

_FILE = "bands.json"
CONFIRMING_BUILDS = 3
"""A regression must reproduce in this many extra builds."""


@dataclass(frozen=True)
class Baseline:
    """The runs that no-op builds and builds of a patch are compared with: source, built parts, and records."""

    request: RegressRequest
    kernel: Kernel
    tree: Path
    parts: Sequence[Part]
    records: Sequence[Record]

    @property
    def executed_parts(self) -> list[Part]:
        """List the parts that can move a metric: those of whose devices cases ran."""
        devices = {record.case.device for record in self.records}
        return [part for part in self.parts if devices & set(part.devices)]


@dataclass(frozen=True)
class Bands:
    """Noise bands in instructions by metric name; `complete` if every case of every no-op build could run."""

    widths: Mapping[str, float]
    complete: bool


@dataclass(frozen=True)
class Confirmed:
    """A comparison whose differences of metrics are confirmed; `dismissed` lists the others, a line each."""

    comparison: Comparison
    dismissed: tuple[str, ...]


def noise_bands(
    session: Session, baseline: Baseline, changes: Sequence[NoopChange] = BAND
) -> Mapping[str, float]:
    """Return by metric name the largest change that any no-op change of any part makes to any case.

    Each is built and run once. Bands are cached with the records of the baseline: looking up every build takes longer
    than running a case.
    """
    cached = cached_key(session, baseline.request, SIDES[0])
    if not cached:
        return _measure(session, baseline, changes).widths
    result: dict[str, float] = {}

    def make(into: Path) -> None:
        bands = _measure(session, baseline, changes)
        result.update(bands.widths)
        if not bands.complete:
            raise DoNotCache
        (into / _FILE).write_text(json.dumps(result))

    folders = [part.folder for part in baseline.parts]
    key = digest(cached, folders, [str(each) for each in changes], code(("campaign",)))
    try:
        folder = session.store.built("bands", key, make)
    except DoNotCache:
        return result
    return dict(json.loads((folder / _FILE).read_text()))


def _measure(session: Session, baseline: Baseline, changes: Sequence[NoopChange]) -> Bands:
    """Build and run each no-op change of each part."""
    request = baseline.request
    few = dataclasses.replace(request, seeds=min(MAX_SEEDS, request.seeds), results=request.results / "noise")
    widths: dict[str, float] = {}
    complete = True
    for part in baseline.executed_parts:
        built = 0
        for noop in changes:
            session.say(f"noise band: no-op change `{noop}` of {part.modules[0]}")
            records = _run(session, few, baseline, baseline.tree, part, noop)
            complete &= bool(records) and all(record.verdict != "error" for record in records)
            built += bool(records)
            ran = {record.case.id for record in records}
            before = [record for record in baseline.records if record.case.id in ran]
            for metric in compare(before, records).metrics:
                if metric.exact:
                    known = widths.get(metric.name, metric.noise_band)
                    widths[metric.name] = max(known, abs(metric.change))
        if not built:
            raise SetupError(f"no no-op change can be applied to {part.folder}: no noise band")
    return Bands(widths, complete)


def confirm(
    session: Session, baseline: Baseline, tree: Path, patched: Sequence[Record], bands: Mapping[str, float]
) -> Confirmed:
    """Compare both sides with these noise bands, and confirm each metric that moved. `tree` is the patched source.

    A machine is prepared again for each build, and now and then its memory layout moves a metric by more than the few
    no-op builds have shown. So the noise band of a metric that moved is widened by more no-op builds, and it must also
    move in CONFIRMING_BUILDS more builds of the patched source.
    """
    first = compare(baseline.records, patched, bands)
    moved = {_key(each): each for each in first.differences if each.metric}
    comparison = first
    if moved:
        more = noise_bands(session, baseline, CONFIRM)
        bands = {name: max(width, more.get(name, 0.0)) for name, width in bands.items()}
        comparison = compare(baseline.records, patched, bands)
    candidates = {_key(each) for each in comparison.differences if each.metric}
    builds = _Confirmation(candidates)
    builds.run(session, baseline, tree, bands)
    dismissed = tuple(
        f"{each.case}: {each.text}; but other builds of the same source differ as much"
        for key, each in moved.items()
        if key not in builds.remaining
    )
    differences = tuple(
        dataclasses.replace(each, confirmed_builds=builds.count.get(_key(each), 0)) if each.metric else each
        for each in comparison.differences
        if not each.metric or _key(each) in builds.remaining
    )
    differences += tuple(
        dataclasses.replace(each, text=f"another build of the patched source {each.text}")
        for each in builds.failed.values()
        if each.verdict == REGRESSION
    )
    comparison = dataclasses.replace(comparison, differences=differences, verdict=overall(differences))
    return Confirmed(comparison, dismissed)


_Key = tuple[str, str, str]


def _key(difference: Difference) -> _Key:
    return difference.case, difference.metric, difference.verdict


class _Confirmation:
    """Differences that all builds of the patched source show: `remaining`, in how many builds, and what failed."""

    def __init__(self, candidates: set[_Key]) -> None:
        self.remaining = candidates
        self.count: dict[_Key, int] = {}
        self.failed: dict[str, Difference] = {}

    def run(self, session: Session, baseline: Baseline, tree: Path, bands: Mapping[str, float]) -> None:
        """Make the builds, until none of the differences is left."""
        request = dataclasses.replace(baseline.request, results=baseline.request.results / "confirm")
        for part in baseline.executed_parts:
            for noop in CONFIRM[-CONFIRMING_BUILDS:]:
                if not self.remaining:
                    return
                session.say(f"confirming: patched source with no-op change `{noop}` of {part.modules[0]}")
                records = _run(session, request, baseline, tree, part, noop)
                if records:
                    self._take(compare(baseline.records, records, bands).differences)

    def _take(self, differences: Sequence[Difference]) -> None:
        # A build whose case fails has no metrics that could contradict.
        self.failed |= {
            each.case: each for each in differences if each.outcome and each.verdict != IMPROVEMENT
        }
        shown = {_key(each) for each in differences}
        self.remaining = {key for key in self.remaining if key[0] in self.failed or key in shown}
        for key in self.remaining & shown:
            self.count[key] = self.count.get(key, 0) + 1


def _run(
    session: Session, request: RegressRequest, baseline: Baseline, tree: Path, part: Part, noop: NoopChange
) -> tuple[Record, ...]:
    """Run the cases with the modules of a tree to which a no-op change of one part is applied."""
    with session.ledger.scratch_folder("noise") as changed:
        copy_sources(tree, baseline.parts, changed)
        try:
            noop.apply(changed / part.folder, part)
            built = build_modules(session, baseline.kernel, changed, baseline.parts, lines=False)
        except SetupError as error:
            # A no-op change may not apply to every tree: the others do.
            session.say(f"no-op change `{noop}` of {part.modules[0]} skipped: {error.headline}")
            return ()
    name = f"{noop} of {part.modules[0]}"
    return run_cases(session, ModuleRun(request, baseline.kernel, built.files, baseline.parts, name))
