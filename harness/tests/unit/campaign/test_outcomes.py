"""Outcomes of cases on baseline and patched."""

from dataclasses import replace

import pytest

from harness.campaign.compare import compare
from harness.campaign.outcomes import IMPROVEMENT, INCONCLUSIVE, NO_DIFFERENCE, REGRESSION
from harness.tests.unit.campaign.test_compare import runs
from harness.tests.unit.results.sample import record
from harness.values.record import Reason
from harness.values.symptom import Symptom

LEAK = Reason("leak", "MR: 3 before, 6 after")
KNOWN = Reason("data", "9 bytes")
UNEXPECTED_PASS = Reason("known", "did not fail (data) as known: is it mended in this kernel?")


def failed(count, *reasons, symptoms=()):
    return runs(count, verdict="fail", reasons=reasons, symptoms=symptoms)


def test_another_failure_of_the_same_kind_is_a_regression():
    """Mutations: compare the kinds of reasons only; take numbers for another failure."""
    other = Reason("leak", "4096 pages neither mapped nor freed")
    assert compare(failed(16, LEAK), failed(16, LEAK, other)).verdict == REGRESSION
    more = Reason("leak", "MR: 3 before, 9 after")
    assert compare(failed(16, LEAK), failed(16, more)).verdict == NO_DIFFERENCE
    some = [*failed(14, LEAK), *failed(16, LEAK, other)[14:]]
    assert compare(failed(16, LEAK), some).verdict == NO_DIFFERENCE


def test_another_symptom_is_a_regression_in_one_run_already():
    """Mutation: compare consoles by their kind only."""
    warned = Reason("console", "WARNING: a")
    warn, kasan = Symptom("warn", "WARNING: a", "a"), Symptom("kasan", "BUG: KASAN: b", "b")
    base = failed(16, warned, symptoms=(warn,))
    assert compare(base, base).verdict == NO_DIFFERENCE
    worse = [*base[1:], *failed(1, warned, symptoms=(warn, kasan))]
    comparison = compare(base, worse)
    assert comparison.verdict == REGRESSION and "BUG: KASAN: b" in comparison.differences[0].text


@pytest.mark.parametrize("verdict", ["known", "fail", "pass"])
def test_a_baseline_that_could_not_run_is_inconclusive(verdict):
    """Mutation: take an error for a pass."""
    base = runs(16, verdict="error", reasons=(Reason("setup", "no space"),))
    comparison = compare(base, runs(16, verdict=verdict, reasons=(LEAK,)))
    assert comparison.verdict == INCONCLUSIVE and "no space" in comparison.differences[0].text


def test_a_known_failure_that_comes_sometimes_must_come_more_often():
    """Mutation: compare the worst run of each side."""
    never, once = runs(16), [*runs(16)[1:], *runs(1, verdict="known", reasons=(KNOWN,))]
    always = runs(16, verdict="known", reasons=(KNOWN,))
    assert [compare(never, once).verdict, compare(once, never).verdict] == [NO_DIFFERENCE, NO_DIFFERENCE]
    assert [compare(never, always).verdict, compare(always, never).verdict] == [REGRESSION, IMPROVEMENT]


def test_a_known_failure_that_always_comes_counts_in_one_run():
    """Mutation: require sixteen runs where the plan states no `sometimes`."""
    known, unexpected = runs(1, verdict="known", reasons=(KNOWN,)), failed(1, UNEXPECTED_PASS)
    assert [compare(known, unexpected).verdict, compare(unexpected, known).verdict] == [
        IMPROVEMENT,
        REGRESSION,
    ]
    assert compare(known, known).known and not compare(known, known).failing


def test_one_failing_run_is_a_regression():
    """Mutation: require it more often, as of a known failure."""
    once = [*runs(15), replace(failed(16, LEAK)[15])]
    assert compare(runs(16), once).verdict == REGRESSION


def known(verdict, *reasons):
    return replace(record(1, "pass"), verdict=verdict, reasons=tuple(Reason(*reason) for reason in reasons))


def test_an_unexpected_pass_is_an_improvement():
    """Mutation: take the unexpected pass for a failure."""
    before = known("known", ("data", "9 bytes"), ("known", "docs/known-defects.md"))
    unexpected = known("fail", ("known", "did not fail (data) as known: is it mended in this kernel?"))
    comparison = compare([before], [unexpected])
    assert (
        comparison.verdict == IMPROVEMENT
        and comparison.differences[0].outcome
        and "9 bytes" in comparison.differences[0].text
    )
    assert compare([before], [before]).known == (before.case.id,)
    assert compare([before], [known("fail", ("leak", "QP"))]).verdict == REGRESSION
    assert compare([unexpected], [before]).verdict == REGRESSION
