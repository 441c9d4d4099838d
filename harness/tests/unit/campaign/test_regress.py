"""What of a patch is judged, by which plans, in which order."""

from difflib import SequenceMatcher
from pathlib import Path
from types import SimpleNamespace

import pytest

from harness.campaign import regress
from harness.campaign.compare import Comparison, Figure
from harness.campaign.coverage import Coverage, Touched
from harness.campaign.outcomes import SAME
from harness.campaign.runs import RegressRequest
from harness.campaign.tree_diff import TreeDiff
from harness.kernel.subsystems import (
    CORE,
    RXE,
)
from harness.plan.checkout import fault_plans

ODP = f"{RXE.folder}/rxe_odp.c"
HEADER = "include/rdma/ib_umem_odp.h"


def narrowed(monkeypatch, tmp_path, old, **options):
    """Of three plans, of which `b` and `c` ran line 10 of rxe_odp.c, and `d` had no case."""
    plans = [tmp_path / f"{name}.toml" for name in "abcd"]
    for plan in plans:
        plan.touch()
    ran = {name: {"rdma_rxe": {"rxe_odp.c": {10 if name in "bc" else 20}}} for name in "abc"}
    cases = {f"{name}/7.3/soft-roce/x": modules for name, modules in ran.items()}
    monkeypatch.setattr(regress.coverage, "measure", lambda *given: Coverage({}, cases))
    question = RegressRequest("p", "7.3", plans, tmp_path, **options)
    session = SimpleNamespace(say=lambda line: None)
    found, said = regress._narrowed(session, question, None, tmp_path, [RXE], Touched({}, old))
    return "".join(path.stem for path in found.plans), said


def test_plans_that_reach_what_is_touched(monkeypatch, tmp_path):
    """Mutations: run all; count the plans that have no case here."""
    plans, (said,) = narrowed(monkeypatch, tmp_path, {ODP: {10}})
    assert plans == "bc" and said.startswith("run: 2 of 3 plans")


@pytest.mark.parametrize(
    ("old", "options", "order"),
    [({ODP: {10}}, {"cut": 0}, "bcad"), ({ODP: {99}}, {}, "abcd"), ({ODP: {10}, HEADER: {5}}, {}, "bcad")],
    ids=["all", "nobody", "header"],
)
def test_plans_that_reach_it_come_first(monkeypatch, tmp_path, old, options, order):
    """Mutations: keep the order of names with --all; narrow by what no line table says."""
    assert narrowed(monkeypatch, tmp_path, old, **options) == (order, [])


def changed(*paths):
    return [TreeDiff(Path(path), ["a"], ["b"], SequenceMatcher()) for path in paths]


def test_a_source_of_no_module_that_is_replaced_is_named(tmp_path):
    """rdma_cm.ko is not shipped: both sides would run Debian's.

    Mutations: take the folder for the modules; a name for a file.
    """
    table = tmp_path / "ib_core.lines"
    table.write_text(
        "CU: /build/umem_odp.c:\numem_odp.c  12  0x10000000  x\n\n/usr/src/include/linux/mm.h:\n"
    )
    cma, namesake = f"{CORE.folder}/cma.c", f"{RXE.folder}/umem_odp.c"
    paths = (f"{CORE.folder}/umem_odp.c", cma, namesake, HEADER, f"{CORE.folder}/cma_priv.h")
    found = regress._of_others(changed(*paths), [("ib_core", table)])
    assert found == [cma, namesake]


def test_what_knows_a_header_as_it_was_is_said():
    """Mutation: let a changed structure that mlx5_core shares look like the patch's own fault."""
    assert regress._unlike_the_rest(changed(ODP)) == []
    (said,) = regress._unlike_the_rest(changed(ODP, HEADER))
    assert HEADER in said and "mlx5_core" in said


def test_plans_of_page_faults_are_those_of_cards_too():
    """Mutations: odp-* only, which miss what an event that is lost or late does; those that go on for minutes."""
    names = {path.stem for path in fault_plans()}
    assert {"odp-write", "mlx5-prefetch-hint", "mlx5-second-fault"} <= names
    assert not any("soak" in name or name.startswith("seed") for name in names)


def test_the_null_band_is_said():
    """Mutation: only of figures that moved."""
    figures = [
        Figure("a", stage, exact, 100, 100, (4, 4), band, 0)
        for stage, exact, band in (
            ("checks least", True, 5),
            ("fault", True, 40),
            ("fault", False, 9),
            ("x mean", True, 7),
        )
    ]
    assert regress.band_said(Comparison(SAME, (), tuple(figures))).endswith(
        "by up to: checks least 5, fault 40"
    )
