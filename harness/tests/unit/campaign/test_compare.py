"""Verdicts over two runs, from records in the shapes of real ones."""

import re
from dataclasses import replace

import pytest

from harness.campaign.compare import compare
from harness.campaign.outcomes import BETTER, CANNOT_TELL, SAME, WORSE
from harness.tests.unit.results.sample import ENVIRONMENT, record
from harness.values.histogram import Histogram
from harness.values.record import Reason


def runs(count=3, added_ns=0, verdict="pass", clock="exact", spread_ns=0, **changes):
    """Several seeds of one case, each fault slower by `added_ns`."""
    made = []
    for seed in range(count):
        one = record(1, "pass")
        faults = tuple(
            replace(f, duration_ns=f.duration_ns + added_ns + seed * spread_ns)
            for f in one.answer.trace.faults
        )
        answer = replace(one.answer, trace=replace(one.answer.trace, faults=faults))
        case = replace(one.case, id=f"{one.case.id}/seed={seed}")
        made.append(
            replace(
                one,
                case=case,
                answer=answer,
                verdict=verdict,
                environment={**ENVIRONMENT, "clock": clock},
                **changes,
            )
        )
    return made


@pytest.mark.parametrize(
    ("added", "band", "verdict"),
    [(0, 0, SAME), (20, 0, WORSE), (-20, 0, BETTER), (60, 20, SAME), (61, 20, WORSE)],
)
def test_exact_latency_against_its_band(added, band, verdict):
    """Mutation: compare >= instead of > with the band; take the sign for nothing."""
    found = compare(runs(8), runs(8, added_ns=added), {"fault": band})
    assert found.verdict == verdict
    figure = next(figure for figure in found.figures if figure.stage == "fault")
    assert figure.change == added and figure.runs == (8, 8)
    if verdict != SAME:
        assert f"{added:+d} instructions" in found.changes[0].text


def test_what_depends_on_the_rest_of_the_machine_must_be_told_apart():
    """Mutations: judge medians of a few runs; forget the rank test."""
    assert compare(runs(4), runs(4, added_ns=90), {}).verdict == SAME
    mixed = runs(8, spread_ns=50)
    moved = [*runs(6, spread_ns=50, added_ns=30), *runs(8, spread_ns=50)[6:]]
    assert compare(mixed, moved, {}).verdict == SAME
    assert compare(mixed, runs(8, spread_ns=50, added_ns=900), {}).verdict == WORSE


def test_without_a_band_a_figure_that_depends_on_the_rest_says_nothing():
    """Mutation: take no band for a band of nothing, and say so."""
    (change,) = compare(runs(8), runs(8, added_ns=90)).changes[:1]
    assert change.verdict == CANNOT_TELL and "was not measured" in change.text


def test_a_new_failure_outranks_a_faster_fault():
    """Mutation: let any `better` win; compare figures of cases that failed."""
    failed = runs(verdict="fail", added_ns=-50, reasons=(Reason("leak", "QP: 2 before, 3 after"),))
    found = compare(runs(), failed)
    assert found.verdict == WORSE and "leak: QP: 2 before, 3 after" in found.changes[0].text
    assert not found.figures
    assert compare(failed, runs()).verdict == BETTER


def test_what_did_not_run_cannot_be_told():
    """Mutation: an error is a pass; a case of one side only is nothing."""
    assert compare([], runs()).verdict == CANNOT_TELL
    errors = runs(verdict="error", reasons=(Reason("setup", "no space left"),))
    found = compare(runs(), errors)
    assert found.verdict == CANNOT_TELL and found.changes[0].text == "no space left"


def test_what_no_longer_runs_is_not_the_same():
    """A patch that takes a capability away. Mutations: a skip is a pass; a failure that is skipped now is mended."""
    skipped = runs(verdict="skip", reasons=(Reason("need", "needs odp.rc.write"),))
    failed = runs(verdict="fail", reasons=(Reason("data", "wrong"),))
    for before in (runs(), failed):
        found = compare(before, skipped)
        assert (
            found.verdict == WORSE
            and "cannot run any more: need: needs odp.rc.write" in found.changes[0].text
        )
    assert compare(skipped, skipped).verdict == CANNOT_TELL
    assert compare(skipped, runs()).verdict == SAME


def test_a_case_behind_the_failures_that_ended_the_other_side_says_nothing():
    """Mutations: call a fix unsure for that; say so too where the changed side ended, or fails there."""
    failed = runs(4, verdict="fail", reasons=(Reason("console", "BUG"),))
    other = [replace(one, case=replace(one.case, id="b/7.3/soft-roce/seed=0")) for one in runs(1)]
    assert compare(failed, runs() + other).verdict == BETTER
    assert compare(runs(), runs() + other).verdict == CANNOT_TELL
    assert compare(failed + other, runs()).verdict == CANNOT_TELL
    broken = [replace(one, verdict="fail", reasons=(Reason("leak", "QP"),)) for one in other]
    assert compare(failed, runs() + broken).verdict == CANNOT_TELL


def test_an_old_failure_hides_no_new_one():
    """Mutations: compare the worst of each side alone; count reasons, not kinds; forget how often."""
    slow = runs(1, verdict="fail", reasons=(Reason("latency", "p99 2 us"),)) + runs(16)[1:]
    oops = runs(16, verdict="fail", reasons=(Reason("console", "KASAN: use-after-free"),))
    found = compare(slow, oops)
    assert found.verdict == WORSE and "not for that: console: KASAN" in found.changes[0].text
    assert compare(oops, oops).verdict == SAME and compare(oops, oops).failing
    often = runs(16, verdict="fail", reasons=(Reason("latency", "p99 3 us"),))
    assert "fails in 16 of 16 runs, without it in 1 of 16" in compare(slow, often).changes[0].text
    assert compare(often, slow).verdict == SAME


def test_instructions_and_real_time_are_not_compared():
    """Mutation: take the clock of one side for that of both."""
    found = compare(runs(8), runs(8, clock="real", added_ns=9000))
    assert found.verdict == CANNOT_TELL and not found.figures and "real time" in found.changes[0].text


def test_a_machine_that_could_not_be_prepared_has_no_clock():
    """Mutation: take that for real time: then mending it is not better."""
    broken = [
        replace(one, environment={}) for one in runs(verdict="fail", reasons=(Reason("console", "BUG"),))
    ]
    assert compare(broken, runs()).verdict == BETTER
    assert [change.outcome for change in compare(runs(), broken).changes] == [True]


def test_real_time_needs_enough_runs():
    """Mutation: judge real time by its medians alone; call what few runs say the same; swap the interval's sides."""
    few = compare(runs(4, clock="real"), runs(4, clock="real", added_ns=9000))
    assert few.verdict == CANNOT_TELL and "4 runs" in few.changes[0].text
    noisy = {"clock": "real", "spread_ns": 100}
    slower = compare(runs(20, **noisy), runs(20, added_ns=9000, **noisy))
    assert slower.verdict == WORSE
    bounds = re.search(r"resamples \+([\d.]+) to \+([\d.]+)", slower.changes[0].text)
    assert bounds is not None and 7 < float(bounds[1]) < 9 < float(bounds[2]) < 11
    assert compare(runs(20, **noisy), runs(20, added_ns=10, **noisy)).verdict == SAME


def test_what_differs_in_the_environments_is_named():
    """Mutation: compare only the kernels."""
    other = [replace(r, environment={**r.environment, "qemu": "11.2.0"}) for r in runs()]
    assert compare(runs(), other).environment == ("qemu: 11.1.3 and 11.2.0",)


def test_runs_of_one_seed_are_compared_with_each_other():
    """A seed moves a figure by more than a patch does. Mutation: compare the medians of both sides."""
    base, patched = runs(4, spread_ns=1000), runs(4, spread_ns=1000, added_ns=20)
    found = compare(base, patched[2:])
    figure = next(figure for figure in found.figures if figure.stage == "fault")
    assert figure.change == 20 and figure.patched - figure.base > 500


def test_the_shortest_way_through_a_stage_is_exact():
    """Mutations: tell of stages whose probes missed calls; tell of the least in real time."""

    def staged(least, clock="exact", missed=0):
        made = []
        for one in runs(2, clock=clock):
            stage = Histogram("checks", "ns", (0, 0, 0, 2), least + 15, least, 15)
            trace = replace(one.answer.trace, histograms=(stage,), missed=missed)
            made.append(replace(one, answer=replace(one.answer, trace=trace)))
        return made

    found = compare(staged(9), staged(11))
    moved = {figure.stage: figure.change for figure in found.figures}
    assert moved["checks least"] == 2 and moved["checks mean"] == 1
    assert "checks least" not in {f.stage for f in compare(staged(9, "real"), staged(11, "real")).figures}
    assert not [f for f in compare(staged(9), staged(11, missed=1)).figures if f.stage.startswith("checks")]


def test_a_machine_that_waits_in_real_time_tells_only_the_shortest_way():
    """Mutation: judge its operations, which wait for a card."""
    paced = {"clock": "paced"}
    stage = Histogram("keys", "ns", (0, 0, 0, 2), 24, 9, 15)

    def staged(added):
        made = []
        for one in runs(2, added_ns=9_000_000 if added else 0, **paced):
            moved = replace(stage, minimum=stage.minimum + added)
            made.append(
                replace(one, answer=replace(one.answer, trace=replace(one.answer.trace, histograms=(moved,))))
            )
        return made

    found = compare(staged(0), staged(20))
    assert [(figure.stage, figure.change) for figure in found.figures] == [("keys least", 20)]
    assert found.verdict == WORSE
    # What a probe's place in a table may cost is nothing, also where no band was measured.
    assert compare(staged(0), staged(15)).verdict == SAME
