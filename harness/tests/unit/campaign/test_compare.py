"""Verdicts over two runs, from records in the shapes of real ones."""

import re
from dataclasses import replace

import pytest

from harness.campaign.compare import compare
from harness.campaign.outcomes import IMPROVEMENT, INCONCLUSIVE, NO_DIFFERENCE, REGRESSION
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
    [
        (0, 0, NO_DIFFERENCE),
        (20, 0, REGRESSION),
        (-20, 0, IMPROVEMENT),
        (60, 20, NO_DIFFERENCE),
        (61, 20, REGRESSION),
    ],
)
def test_exact_latency_against_its_band(added, band, verdict):
    """Mutation: compare >= instead of > with the band; take the sign for nothing."""
    comparison = compare(runs(8), runs(8, added_ns=added), {"fault median": band})
    assert comparison.verdict == verdict
    metric = next(metric for metric in comparison.metrics if metric.stage == "fault")
    assert metric.change == added and metric.runs == (8, 8)
    if verdict != NO_DIFFERENCE:
        assert f" instructions, {added:+d}; " in comparison.differences[0].text


def test_medians_need_enough_runs_and_a_rank_test():
    """Mutations: compare medians of a few runs; forget the rank test."""
    assert compare(runs(4), runs(4, added_ns=90), {}).verdict == NO_DIFFERENCE
    mixed = runs(8, spread_ns=50)
    moved = [*runs(6, spread_ns=50, added_ns=30), *runs(8, spread_ns=50)[6:]]
    assert compare(mixed, moved, {}).verdict == NO_DIFFERENCE
    assert compare(mixed, runs(8, spread_ns=50, added_ns=900), {}).verdict == REGRESSION


def test_a_median_without_a_noise_band_is_inconclusive():
    """Mutation: take a missing noise band for one of 0."""
    (difference,) = compare(runs(8), runs(8, added_ns=90)).differences[:1]
    assert difference.verdict == INCONCLUSIVE and "noise band not measured" in difference.text


def test_a_new_failure_outranks_a_faster_fault():
    """Mutations: let any improvement win; compare metrics of cases that failed."""
    failed = runs(verdict="fail", added_ns=-50, reasons=(Reason("leak", "QP: 2 before, 3 after"),))
    comparison = compare(runs(), failed)
    assert (
        comparison.verdict == REGRESSION and "leak: QP: 2 before, 3 after" in comparison.differences[0].text
    )
    assert not comparison.metrics
    assert compare(failed, runs()).verdict == IMPROVEMENT


def test_cases_that_could_not_run_are_inconclusive():
    """Mutation: an error is a pass; a case of one side only is nothing."""
    assert compare([], runs()).verdict == INCONCLUSIVE
    errors = runs(verdict="error", reasons=(Reason("setup", "no space left"),))
    comparison = compare(runs(), errors)
    assert comparison.verdict == INCONCLUSIVE and comparison.differences[0].text == "no space left"


def test_a_case_that_is_skipped_now_is_a_regression():
    """A patch that removes a capability. Mutations: a skip is a pass; a failure that is skipped now is fixed."""
    skipped = runs(verdict="skip", reasons=(Reason("need", "needs odp.rc.write"),))
    failed = runs(verdict="fail", reasons=(Reason("data", "wrong"),))
    for before in (runs(), failed):
        comparison = compare(before, skipped)
        assert (
            comparison.verdict == REGRESSION
            and "cannot run any more: need: needs odp.rc.write" in comparison.differences[0].text
        )
    assert compare(skipped, skipped).verdict == INCONCLUSIVE
    assert compare(skipped, runs()).verdict == NO_DIFFERENCE


def test_cases_after_the_failures_that_stopped_the_baseline_do_not_count():
    """Mutations: call a fix inconclusive; the same where the patched side stopped, or where it fails there."""
    failed = runs(4, verdict="fail", reasons=(Reason("console", "BUG"),))
    other = [replace(one, case=replace(one.case, id="b/7.3/soft-roce/seed=0")) for one in runs(1)]
    assert compare(failed, runs() + other).verdict == IMPROVEMENT
    assert compare(runs(), runs() + other).verdict == INCONCLUSIVE
    assert compare(failed + other, runs()).verdict == INCONCLUSIVE
    broken = [replace(one, verdict="fail", reasons=(Reason("leak", "QP"),)) for one in other]
    assert compare(failed, runs() + broken).verdict == INCONCLUSIVE


def test_an_old_failure_hides_no_new_one():
    """Mutations: compare only the worst run of each side; count reasons, not kinds; forget how often."""
    slow = runs(1, verdict="fail", reasons=(Reason("latency", "p99 2 us"),)) + runs(16)[1:]
    oops = runs(16, verdict="fail", reasons=(Reason("console", "KASAN: use-after-free"),))
    comparison = compare(slow, oops)
    assert (
        comparison.verdict == REGRESSION
        and "not for this reason: console: KASAN" in comparison.differences[0].text
    )
    assert compare(oops, oops).verdict == NO_DIFFERENCE and compare(oops, oops).failing
    often = runs(16, verdict="fail", reasons=(Reason("latency", "p99 3 us"),))
    assert (
        "fails in 16 of 16 patched runs, in 1 of 16 baseline runs" in compare(slow, often).differences[0].text
    )
    assert compare(often, slow).verdict == NO_DIFFERENCE


def test_instructions_and_real_time_are_not_compared():
    """Mutation: take the clock of one side for that of both."""
    comparison = compare(runs(8), runs(8, clock="real", added_ns=9000))
    assert (
        comparison.verdict == INCONCLUSIVE
        and not comparison.metrics
        and "real time" in comparison.differences[0].text
    )


def test_a_machine_that_could_not_be_prepared_has_no_clock():
    """Mutation: take that for real time: then fixing it is no improvement."""
    broken = [
        replace(one, environment={}) for one in runs(verdict="fail", reasons=(Reason("console", "BUG"),))
    ]
    assert compare(broken, runs()).verdict == IMPROVEMENT
    assert [each.outcome for each in compare(runs(), broken).differences] == [True]


def test_real_time_needs_enough_runs():
    """Mutations: compare medians alone; call a few runs no difference; swap the sides of the interval."""
    few = compare(runs(4, clock="real"), runs(4, clock="real", added_ns=9000))
    assert few.verdict == INCONCLUSIVE and "4 runs" in few.differences[0].text
    noisy = {"clock": "real", "spread_ns": 100}
    slower = compare(runs(20, **noisy), runs(20, added_ns=9000, **noisy))
    assert slower.verdict == REGRESSION
    bounds = re.search(r"interval \+([\d.]+) to \+([\d.]+)", slower.differences[0].text)
    assert bounds is not None and 7 < float(bounds[1]) < 9 < float(bounds[2]) < 11
    assert compare(runs(20, **noisy), runs(20, added_ns=10, **noisy)).verdict == NO_DIFFERENCE


def test_differing_environments_are_named():
    """Mutation: compare only the kernels."""
    other = [replace(r, environment={**r.environment, "qemu": "11.2.0"}) for r in runs()]
    assert compare(runs(), other).environment == ("qemu: 11.1.3 and 11.2.0",)


def test_runs_of_one_seed_are_compared_with_each_other():
    """A seed moves a metric by more than a patch does. Mutation: compare the medians of both sides."""
    base, patched = runs(4, spread_ns=1000), runs(4, spread_ns=1000, added_ns=20)
    comparison = compare(base, patched[2:])
    metric = next(metric for metric in comparison.metrics if metric.stage == "fault")
    assert metric.change == 20 and metric.patched - metric.baseline > 500


def test_the_minimum_of_a_stage_is_a_metric_in_exact_time_only():
    """Mutations: compare stages whose probes missed calls; compare minima in real time."""

    def staged(minimum, clock="exact", missed=0):
        made = []
        for one in runs(2, clock=clock):
            stage = Histogram("checks", "ns", (0, 0, 0, 2), minimum + 15, minimum, 15)
            trace = replace(one.answer.trace, histograms=(stage,), missed=missed)
            made.append(replace(one, answer=replace(one.answer, trace=trace)))
        return made

    comparison = compare(staged(9), staged(11))
    moved = {metric.name: metric.change for metric in comparison.metrics}
    assert moved["checks minimum"] == 2 and moved["checks mean"] == 1
    assert "checks minimum" not in {m.name for m in compare(staged(9, "real"), staged(11, "real")).metrics}
    assert not [m for m in compare(staged(9), staged(11, missed=1)).metrics if m.stage == "checks"]


def test_only_minima_are_compared_where_a_machine_waits_in_real_time():
    """Mutation: compare its operations, which wait for a card."""
    icount = {"clock": "icount"}
    stage = Histogram("keys", "ns", (0, 0, 0, 2), 24, 9, 15)

    def staged(added):
        made = []
        for one in runs(2, added_ns=9_000_000 if added else 0, **icount):
            moved = replace(stage, minimum=stage.minimum + added)
            made.append(
                replace(one, answer=replace(one.answer, trace=replace(one.answer.trace, histograms=(moved,))))
            )
        return made

    comparison = compare(staged(0), staged(20))
    assert [(metric.name, metric.change) for metric in comparison.metrics] == [("keys minimum", 20)]
    assert comparison.verdict == REGRESSION
    # The minimum noise band applies where none was measured, too.
    assert compare(staged(0), staged(15)).verdict == NO_DIFFERENCE
