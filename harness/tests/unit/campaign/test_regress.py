"""Plans that run for a patch, their order, and the lines that no case tests."""

from types import SimpleNamespace

import pytest

from harness.campaign import regress
from harness.campaign.builds import BuiltModules
from harness.campaign.compare import Comparison
from harness.campaign.coverage import ChangedLines, Coverage
from harness.campaign.interleave import Side, Sides
from harness.campaign.metrics import Metric
from harness.campaign.outcomes import IMPROVEMENT, INCONCLUSIVE, NO_DIFFERENCE, REGRESSION, Difference
from harness.campaign.question import RegressRequest
from harness.kernel.subsystems import (
    RXE,
)
from harness.plan.checkout import fault_plans

ODP = f"{RXE.folder}/rxe_odp.c"
HEADER = "include/rdma/ib_umem_odp.h"


def narrowed(monkeypatch, tmp_path, old, **options):
    """Narrow four plans, of which `b` and `c` execute line 10 of rxe_odp.c, and `d` has no case."""
    plans = [tmp_path / f"{name}.toml" for name in "abcd"]
    for plan in plans:
        plan.touch()
    ran = {name: {"rdma_rxe": {"rxe_odp.c": {10 if name in "bc" else 20}}} for name in "abc"}
    cases = {f"{name}/7.3/soft-roce/x": modules for name, modules in ran.items()}
    monkeypatch.setattr(regress.coverage, "measure", lambda *arguments: Coverage({}, cases))
    request = RegressRequest("p", "7.3", plans, tmp_path, **options)
    session = SimpleNamespace(say=lambda line: None)
    side = Side(tmp_path, BuiltModules({}, "gcc", {}))
    sides = Sides(None, [RXE], side, side)
    narrow, notes = regress._narrow(session, request, sides, ChangedLines({}, old))
    return "".join(path.stem for path in narrow.plans), notes


def test_plans_that_execute_changed_lines_are_run(monkeypatch, tmp_path):
    """Mutations: run all; count the plans that have no case here."""
    plans, (note,) = narrowed(monkeypatch, tmp_path, {ODP: {10}})
    assert plans == "bc" and note.startswith("ran 2 of 3 plans")


@pytest.mark.parametrize(
    ("old", "options", "order"),
    [({ODP: {10}}, {"cut": 0}, "bcad"), ({ODP: {99}}, {}, "abcd"), ({ODP: {10}, HEADER: {5}}, {}, "bcad")],
    ids=["all", "none", "header"],
)
def test_plans_that_execute_changed_lines_come_first(monkeypatch, tmp_path, old, options, order):
    """Mutations: keep the order of names with --all; narrow by headers, which no line table resolves."""
    assert narrowed(monkeypatch, tmp_path, old, **options) == (order, [])


def test_fault_plans_include_those_of_cards():
    """Mutations: odp-* only, which miss lost and late events; plans that run for minutes."""
    names = {path.stem for path in fault_plans()}
    assert {"odp-write", "mlx5-prefetch-hint", "mlx5-second-fault"} <= names
    assert not any("soak" in name or name.startswith("seed") for name in names)


def test_noise_bands_are_those_of_minima_and_whole_latencies():
    """Mutation: only of metrics that moved; means too."""
    metrics = [
        Metric("a", stage, statistic, exact, 100, 100, (4, 4), band, 0)
        for stage, statistic, exact, band in (
            ("checks", "minimum", True, 5),
            ("fault", "median", True, 40),
            ("fault", "median", False, 90),
            ("x", "mean", True, 7),
        )
    ]
    bands = regress.noise_bands(Comparison(NO_DIFFERENCE, (), tuple(metrics)))
    assert bands == {"checks minimum": 5, "fault median": 40}


FIXED = Difference(IMPROVEMENT, "a", "no longer fails: data", True)


@pytest.mark.parametrize(
    ("comparison", "fixed"),
    [
        (Comparison(IMPROVEMENT, (FIXED,)), IMPROVEMENT),
        (Comparison(IMPROVEMENT, (Difference(IMPROVEMENT, "a", "fault: -20 instructions"),)), REGRESSION),
        (Comparison(IMPROVEMENT, (FIXED,), failing=("b",)), REGRESSION),
        (Comparison(REGRESSION, (FIXED, Difference(REGRESSION, "b", "leaks", True))), REGRESSION),
        (
            Comparison(REGRESSION, (FIXED, Difference(REGRESSION, "b", "fault: +40 instructions"))),
            IMPROVEMENT,
        ),
        (Comparison(INCONCLUSIVE, (FIXED, Difference(INCONCLUSIVE, "b", "no machine", True))), INCONCLUSIVE),
        (Comparison(NO_DIFFERENCE, ()), REGRESSION),
    ],
)
def test_a_fix_fixes_something_and_leaves_no_failure(comparison, fixed):
    """Mutations: take a faster fault for a fix; forget what still fails; count what a fix costs."""
    assert regress.is_fix(comparison)[0] == fixed
