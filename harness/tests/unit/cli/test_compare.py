"""The text output of `compare`, of which `regress` prints the same."""

from dataclasses import replace

import pytest

from harness.campaign.compare import Comparison
from harness.campaign.outcomes import NO_DIFFERENCE
from harness.cli import main
from harness.cli.compare import show
from harness.tests.unit.campaign.test_mail import METRIC, REGRESSION_RESULT
from harness.tests.unit.campaign.test_side_by_side_html import runs
from harness.tests.unit.results.sample import stored


@pytest.fixture
def compared(tmp_path, capfd):
    """Compare two stored runs; return the exit status and the lines below the table."""

    def compare(*records):
        for name, some in zip(("a", "b"), records, strict=True):
            stored(tmp_path / name, some)
        status = main(["compare", str(tmp_path / "a"), str(tmp_path / "b")])
        return status, [line for line in capfd.readouterr().out.splitlines() if line[0] not in "┏┃┡│└"]

    return compare


def test_a_regression_is_written_out(compared):
    """Mutations: print the name of the metric only; exit with 0."""
    status, lines = compared(runs(), runs(20))
    text = "minimum time in stage `checks` (map and lock pages): 1013 -> 1033 instructions, +20; "
    text += "noise band not measured (`regress` measures it)"
    assert status == 1 and lines == [
        f"regression: odp-write/7.3/soft-roce/remote: {text}",
        "verdict: regression (1 case compared by latency, 1 difference)",
    ]


def test_no_difference_claims_no_more_than_was_compared(compared):
    """Mutation: claim a noise band that was not measured."""
    status, lines = compared(runs(), runs())
    assert status == 0 and lines == [
        "No new failure, console symptom or leak; no latency moved.",
        "verdict: no difference (1 case compared by latency, 0 differences)",
    ]


def test_the_result_of_regress_has_its_confirmation_and_its_failures(capfd):
    """Mutations: leave out the builds that confirm it; what fails on both sides; claim a band for nothing."""
    show(replace(REGRESSION_RESULT.comparison, failing=("odp-iova",), known=("odp-atomic",)), banded=True)
    output = capfd.readouterr().out
    assert "threshold: 15; confirmed by 3 more builds of the patched source" in output
    assert "fails on baseline and patched alike: odp-iova" in output
    assert "known failure on baseline and patched alike: odp-atomic" in output
    show(Comparison(NO_DIFFERENCE, (), (METRIC,)), banded=True)
    assert "no latency moved beyond its noise band." in capfd.readouterr().out
