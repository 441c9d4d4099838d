import subprocess
import sys
from pathlib import Path

import pytest

import harness.cli
from harness.cli import VERBS, main

FOLDER = Path(harness.cli.__file__).parent


@pytest.mark.parametrize("option", ["--version", "--help"])
def test_version_and_help_import_no_verb(option):
    """Mutation: import a verb, or cli/common.py with rich and pytest, at the top of harness/cli."""
    program = (
        f"import sys; from harness.cli import main; main([{option!r}]); print(*sys.modules, file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    loaded = {name for name in done.stderr.split() if name.startswith(("harness", "rich", "pytest"))}
    assert loaded <= {"harness", "harness.cli", "harness.errors"}


def test_help_lists_every_verb_with_its_line(capsys):
    """Mutations: leave a verb out of VERBS; leave the line out of its parser."""
    modules = {path.stem.replace("_", "-") for path in FOLDER.glob("*.py")} - {
        "--init--",
        "common",
        "man-page",
    }
    assert set(VERBS) == modules
    assert main(["--help"]) == 0
    text = " ".join(capsys.readouterr().out.split())
    for name, line in VERBS.items():
        # argparse breaks words at hyphens.
        assert f"{name} {line}".replace("- ", "-") in text.replace("- ", "-")


@pytest.mark.parametrize("name", VERBS)
def test_a_verb_has_help_of_its_own(name, capsys):
    """Mutation: give only the verb `run` its options."""
    assert main([name, "--help"]) == 0
    assert "--cache DIR" in capsys.readouterr().out


@pytest.mark.parametrize("argv", [[], ["runs"], ["--cache", "x"]])
def test_a_command_line_without_a_verb_is_a_usage_error(argv, capsys):
    """Mutation: let the error of the import through."""
    assert main(argv) == 2
    assert "usage: odp-harness" in capsys.readouterr().err
