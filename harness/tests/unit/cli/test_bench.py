"""Options of bench."""

import pytest

from harness.cli import main


@pytest.mark.parametrize(
    ("name", "rounds", "limit"), [("faults", "1", "2"), ("boot", "0", "1"), ("card", "-1", "1")]
)
def test_too_few_rounds_are_a_usage_error(capsys, name, rounds, limit):
    """Mutations: divide by the rounds between a long and a short run; take the default for 0."""
    assert main(["bench", name, "--rounds", rounds]) == 2
    assert f"--rounds {rounds}: bench {name} takes {limit} or more" in capsys.readouterr().err
