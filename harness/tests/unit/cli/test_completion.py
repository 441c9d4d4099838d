"""Shell completion that is made from the parsers."""

import subprocess

import pytest

from harness.cli import whole_parser
from harness.cli.completion import completion


def _bash(*words):
    """Return what bash offers for the last of `words`."""
    script = completion(whole_parser(), "bash") + (
        "\nCOMP_WORDS=(" + " ".join(f"'{word}'" for word in words) + f"); COMP_CWORD={len(words) - 1}"
        '\n_shtab_odp_harness\nprintf "%s\\n" "${COMPREPLY[@]}"\n'
    )
    done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, check=True, timeout=30)
    return done.stdout.split()


def test_bash_completes_verbs_options_and_devices():
    """Mutation: leave out `action.choices = tuple(DEVICES)`."""
    assert _bash("odp-harness", "reg") == ["regress"]
    assert _bash("odp-harness", "run", "--see") == ["--seeds"]
    assert _bash("odp-harness", "run", "--device", "connectx-") == ["connectx-5", "connectx-7"]


def test_bash_completes_paths(tmp_path, monkeypatch):
    """Mutation: complete actions of the type str instead of Path."""
    (tmp_path / "a-folder").mkdir()
    (tmp_path / "a-file").touch()
    monkeypatch.chdir(tmp_path)
    assert _bash("odp-harness", "run", "--results", "a-") == ["a-folder"]


@pytest.mark.parametrize("shell", ["bash", "zsh"])
def test_completion_names_every_verb(shell):
    """Mutation: take the parser of one verb only."""
    parser = whole_parser()
    script = completion(parser, shell)
    (verbs,) = parser._subparsers._group_actions
    assert len(verbs.choices) > 15 and all(verb in script for verb in verbs.choices)
    assert "--seeds" in script and "--control" in script
