import argparse
from pathlib import Path

import pytest
from _pytest.config.argparsing import Parser

from harness.cli import common, run
from harness.plan import options, plugin
from harness.plan.options import OPTIONS
from harness.plan.pytest_args import RunRequest

OWN = {"-h", "-k", "-x", "-j", "--list"}
"""Options of `run` that pytest has itself, or for which it has another word."""


@pytest.fixture
def run_parser():
    parser = argparse.ArgumentParser(prog="run")
    common.common_options(parser)
    run.options(parser)
    return parser


@pytest.fixture
def pytest_parser():
    parser = Parser(_ispytest=True)
    plugin.pytest_addoption(parser)
    return parser


def test_both_faces_have_the_same_options_with_the_same_help_and_meaning(run_parser, pytest_parser):
    """Mutation: declare an option, its help, its metavar or its type in one of the faces only."""
    fields = ("help", "metavar", "type", "choices", "default")
    ours = {
        action.option_strings[0]: [getattr(action, field) for field in fields]
        for action in run_parser._actions
        if action.option_strings and action.option_strings[0] not in OWN
    }
    theirs = {}
    for option in pytest_parser.getgroup("odp-harness").options:
        attributes = option.attrs()
        flag = attributes.get("action") == "store_true"
        theirs[option.names()[0]] = [
            attributes.get(field, False if flag and field == "default" else None) for field in fields
        ]
    assert ours == theirs
    assert set(ours) == {option.name for option in OPTIONS}


ARGV = [
    *("--kernel=7.3", "--kernel=6.1", "--device=soft-roce", "--time=real", "--icount", "--twice", "--cut=2"),
    *("--seeds=3", "--ruled-once", "--payload=p", "--blocks=mlx5_ib", "--no-skip", "--cache=c", "--image=i"),
    *("--cache-limit=5368709120", "--mirror=m", "--vm-images=v", "--resume=r"),
]


def test_options_of_run_reach_pytest_with_their_values(run_parser, pytest_parser):
    """Mutations: leave an option out of the round trip; let --resume be a flag, or --cache-limit take bytes alone."""
    typed = [word.replace("5368709120", "5G") for word in ARGV]
    parsed = run_parser.parse_args(typed)
    values = {option.key: getattr(parsed, option.key) for option in OPTIONS}
    assert sorted(options.arguments(values)) == sorted(ARGV)
    again = pytest_parser.parse_known_args(options.arguments(values))
    assert {key: getattr(again, key) for key in values} == values
    assert values["cache_limit"] == 5 << 30 and values["resume"] == Path("r")
    assert {key for key, value in values.items() if not value} == {"results"}, "every option was tried"


def test_a_value_of_no_option_is_refused():
    """Mutation: drop it in silence."""
    with pytest.raises(KeyError, match="no option icount_time"):
        RunRequest([], Path("r"), values={"icount_time": True}).arguments()


def test_a_size_is_checked_when_it_is_typed(run_parser, capsys):
    """Mutation: let the error of parse_size through."""
    with pytest.raises(SystemExit):
        run_parser.parse_args(["--cache-limit=big"])
    assert "argument --cache-limit: 'big' is not a size: as 500M or 5G" in capsys.readouterr().err
