"""Which cases of a plan run."""

from types import SimpleNamespace

import pytest

from harness.errors import Unsupported
from harness.plan.plugin import PlanItem, spread, without_twins


def items(*kernels):
    made = []
    for kernel in kernels:
        item = object.__new__(PlanItem)
        item.planned = SimpleNamespace(kernel=kernel)
        made.append(item)
    return made


@pytest.mark.parametrize(("newest", "left"), [("7.3.4", ["7.2", "7.3"]), ("7.4.1", ["7.2", "7.3", "newest"])])
def test_newest_runs_only_when_it_is_newer(newest, left):
    """Mutation: always leave it out; let a series that is gone from the archive end the run."""
    releases = {"7.2": "7.2.13", "7.3": "7.3.4", "newest": newest}

    def resolve(series):
        if series == "7.2":
            raise Unsupported("gone")
        return releases[series]

    found = without_twins(items("7.2", "7.3", "newest"), resolve)
    assert [item.planned.kernel for item in found] == left


def test_newest_alone_stays():
    """Mutation: compare with releases that nobody asked for."""
    assert len(without_twins(items("newest"), lambda series: "7.3.4")) == 1


def test_a_cut_is_spread_over_the_matrix():
    """Mutation: take the first ones; take none for 0."""
    assert spread(range(9), 3) == [0, 3, 6]
    assert list(spread(range(9), 0)) == list(range(9)) == list(spread(range(9), 12))
