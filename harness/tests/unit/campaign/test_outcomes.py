"""How cases end with a change and without it."""

from dataclasses import replace

import pytest

from harness.campaign.compare import compare
from harness.campaign.outcomes import BETTER, CANNOT_TELL, SAME, WORSE
from harness.tests.unit.campaign.test_compare import runs
from harness.values.record import Reason
from harness.values.symptom import Symptom

LEAK = Reason("leak", "MR: 3 before, 6 after")
KNOWN = Reason("data", "9 bytes")
MENDED = Reason("known", "did not fail (data) as known: is it mended in this kernel?")


def failed(count, *reasons, symptoms=()):
    return runs(count, verdict="fail", reasons=reasons, symptoms=symptoms)


def test_another_failure_of_the_same_kind_is_new():
    """Mutations: compare the kinds of reasons only; take numbers for another failure."""
    other = Reason("leak", "nobody freed 4096 pages")
    assert compare(failed(16, LEAK), failed(16, LEAK, other)).verdict == WORSE
    more = Reason("leak", "MR: 3 before, 9 after")
    assert compare(failed(16, LEAK), failed(16, more)).verdict == SAME
    some = [*failed(14, LEAK), *failed(16, LEAK, other)[14:]]
    assert compare(failed(16, LEAK), some).verdict == SAME


def test_another_symptom_is_new_in_one_run_already():
    """Mutation: leave a console to its kind."""
    warned = Reason("console", "WARNING: a")
    warn, kasan = Symptom("warn", "WARNING: a", "a"), Symptom("kasan", "BUG: KASAN: b", "b")
    base = failed(16, warned, symptoms=(warn,))
    assert compare(base, base).verdict == SAME
    worse = [*base[1:], *failed(1, warned, symptoms=(warn, kasan))]
    found = compare(base, worse)
    assert found.verdict == WORSE and "BUG: KASAN: b" in found.changes[0].text


@pytest.mark.parametrize("verdict", ["known", "fail", "pass"])
def test_a_side_without_the_change_that_could_not_run_says_nothing(verdict):
    """Mutation: take what could not run for a pass."""
    base = runs(16, verdict="error", reasons=(Reason("setup", "no space"),))
    found = compare(base, runs(16, verdict=verdict, reasons=(LEAK,)))
    assert found.verdict == CANNOT_TELL and "no space" in found.changes[0].text


def test_what_comes_sometimes_must_come_more_often():
    """Mutation: compare the worst run of each side."""
    never, once = runs(16), [*runs(16)[1:], *runs(1, verdict="known", reasons=(KNOWN,))]
    always = runs(16, verdict="known", reasons=(KNOWN,))
    assert [compare(never, once).verdict, compare(once, never).verdict] == [SAME, SAME]
    assert [compare(never, always).verdict, compare(always, never).verdict] == [WORSE, BETTER]


def test_what_must_come_says_so_in_one_run():
    """Mutation: want sixteen of a defect that its plan says always comes."""
    known, mended = runs(1, verdict="known", reasons=(KNOWN,)), failed(1, MENDED)
    assert [compare(known, mended).verdict, compare(mended, known).verdict] == [BETTER, WORSE]
    assert compare(known, known).known and not compare(known, known).failing


def test_a_failure_here_and_there_is_worse():
    """Mutation: want it more often, as of what is known."""
    once = [*runs(15), replace(failed(16, LEAK)[15])]
    assert compare(runs(16), once).verdict == WORSE
