"""The files of docs/examples/."""

import subprocess
import sys
from pathlib import Path

import pytest

from harness.plan.plan import load

TOP = Path(__file__).parents[3]
EXAMPLES = TOP / "docs/examples"


def _run(*argv):
    return subprocess.run(argv, cwd=TOP, capture_output=True, text=True, timeout=300)


def test_the_annotated_plan_is_valid():
    """Mutation: rename a key of the schema."""
    plan = load(EXAMPLES / "annotated-plan.toml")
    cases = list(plan.cases(("newest",), devices=("connectx-5",)))
    assert len(cases) == 4 and all(planned.case.rules for planned in cases)


def test_the_unit_test_of_the_card_passes():
    """Mutation: let the rule lose-resume finish the fault."""
    done = _run(
        sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", EXAMPLES / "card_unit_test.py"
    )
    assert done.returncode == 0 and "2 passed" in done.stdout, done.stdout


def test_the_page_fault_handler_starts():
    """Mutation: rename harness.guest.kmod.odpnl."""
    done = _run(sys.executable, EXAMPLES / "pagefault_handler.py", "--help")
    assert done.returncode == 0 and "--fail-queue" in done.stdout, done.stderr


@pytest.mark.parametrize("script", sorted(EXAMPLES.glob("*.sh")), ids=lambda path: path.name)
def test_shell_scripts_are_valid(script):
    """Mutation: leave out a `done`."""
    done = _run("sh", "-n", script)
    assert done.returncode == 0, done.stderr
