"""Which cases of a plan run."""

from argparse import Namespace

import pytest

from harness.cli import main
from harness.errors import Unsupported, UsageError
from harness.kernel import local_tree
from harness.kernel.packages import Kernels
from harness.plan.checkout import find_folder
from harness.plan.plan import load
from harness.plan.pytest_args import check_expression
from harness.plan.select import (
    chosen,
    newest_is_another,
    spread,
)


@pytest.mark.parametrize(("newest", "same"), [("7.3.4", True), ("7.4.1", False)])
def test_newest_runs_only_when_it_is_newer(newest, same):
    """Mutation: always leave it out; let a series that is gone from the archive end the run."""
    releases = {"7.2": "7.2.13", "7.3": "7.3.4", "newest": newest}

    def resolve(series):
        if series == "7.2":
            raise Unsupported("gone")
        return releases[series]

    assert newest_is_another({"7.2", "7.3", "newest"}, resolve) is same


def test_newest_alone_stays():
    """Mutation: compare with releases that were not selected."""
    assert not newest_is_another({"newest"}, lambda series: "7.3.4")


def test_a_cut_is_spread_over_the_matrix():
    """Mutation: take the first ones; take none for 0."""
    assert spread(range(9), 3) == [0, 3, 6]
    assert list(spread(range(9), 0)) == list(range(9)) == list(spread(range(9), 12))


def test_a_case_with_rules_of_the_card_may_run_once():
    """Mutation: ignore the options; take an unselected case, too."""
    options = {
        "kernel": ["7.3"],
        "device": ["connectx-5"],
        "time": None,
        "icount": False,
        "cut": 1,
        "seeds": 4,
    }
    folder = find_folder("testplans", None)
    for name, once, runs in (("mlx5-event-dropped", 1, 4), ("odp-write", 4, 4)):
        plan = load(folder / f"{name}.toml")
        assert len(list(chosen(plan, Namespace(**options, ruled_once=True)))) == once
        assert len(list(chosen(plan, Namespace(**options, ruled_once=False)))) == runs


def test_cases_on_a_tree_are_called_by_its_release(monkeypatch):
    """They run on the tree all the same. Mutation: ask the archive for the release."""
    monkeypatch.setattr(local_tree, "called", lambda name: "7.3.4-mine" if name == "/linux" else name)
    options = {
        "kernel": ["/linux"],
        "device": ["soft-roce"],
        "time": None,
        "icount": False,
        "cut": 2,
        "seeds": 0,
    }
    plan = load(find_folder("testplans", None) / "odp-write.toml")
    cases = list(chosen(plan, Namespace(**options, ruled_once=False)))
    assert {(one.kernel, one.case.id.split("/")[1]) for one in cases} == {("/linux", "7.3.4-mine")}


@pytest.mark.parametrize(
    "text", ["", "odp-write and (soft-roce or connectx-5)", "not a.mapping=file", "a[b]-c"]
)
def test_an_expression_of_k(text):
    """Mutation: take a dash for a minus."""
    check_expression(text)


@pytest.mark.parametrize("text", ["a and", "a b", "(a", "and"])
def test_no_expression_of_k(text):
    """Mutation: leave it to pytest, after the modules are built."""
    with pytest.raises(UsageError, match="is no expression"):
        check_expression(text)


def test_the_cases_are_listed(capsys):
    """Mutations: ignore -k; match it with half of a case's name only."""
    assert main(["run", "--list", "-k", "odp-write", "--kernel", "7.3", "--device", "soft-roce"]) == 0
    listed = capsys.readouterr().out
    assert "odp-write/7.3/soft-roce/remote" in listed and "odp-read" not in listed
    assert (
        main(["run", "--list", "-k", "odp-write and not /6.1/", "--kernel", "6.1", "--kernel", "6.12"]) == 0
    )
    listed = capsys.readouterr().out
    assert "odp-write/6.12/soft-roce/remote" in listed and "/6.1/" not in listed
    assert main(["run", "--list", "-k", "nothing-at-all"]) == 3
    assert "no case was listed" in capsys.readouterr().err


@pytest.mark.parametrize("options", [("--device", "connectx-9"), ("--kernel", "6.13")])
def test_an_unknown_device_or_kernel_is_a_usage_error(options, capsys, monkeypatch):
    """Mutation: run no case of it and call that a set-up that failed."""
    monkeypatch.setattr(Kernels, "releases", lambda self: ["7.3.4+deb13-amd64"])
    assert main(["run", "--list", *options]) == 2
    assert f"unknown {options[0][2:]} {options[1]!r}" in capsys.readouterr().err


def test_an_exact_release_is_chosen(capsys, monkeypatch):
    """Mutation: take none but a series."""
    monkeypatch.setattr(Kernels, "releases", lambda self: ["6.12.90+deb13-amd64"])
    assert main(["run", "--list", "-k", "odp-write", "--kernel", "6.12.90+deb13-amd64"]) == 0
    assert "odp-write/6.12.90+deb13-amd64/soft-roce/remote" in capsys.readouterr().out
