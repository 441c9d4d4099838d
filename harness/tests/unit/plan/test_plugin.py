"""Plans as pytest items: what needs no machine."""

import os
import subprocess
import sys
from pathlib import Path

import harness


def test_tests_that_are_no_plans_make_no_results(tmp_path):
    """Mutation: open the results before it is known that there may be plans."""
    (tmp_path / "test_it.py").write_text("def test_it(): pass\n")
    argv = [
        sys.executable,
        "-m",
        "pytest",
        "-p",
        "harness.plan.plugin",
        "-p",
        "no:cacheprovider",
        "-n",
        "1",
        "test_it.py",
    ]
    environment = {**os.environ, "PYTHONPATH": str(Path(harness.__file__).parents[1]), "PYTEST_ADDOPTS": ""}
    done = subprocess.run(argv, capture_output=True, text=True, cwd=tmp_path, env=environment, timeout=300)
    assert done.returncode == 0 and "1 passed" in done.stdout, done.stdout + done.stderr
    assert "records" not in done.stdout and not (tmp_path / "odp-results").exists()
