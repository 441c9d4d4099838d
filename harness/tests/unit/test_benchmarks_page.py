"""The script that writes measurements into docs/benchmarks.md."""

import runpy
from pathlib import Path

import pytest

DOCS = Path(__file__).parents[3] / "docs"


@pytest.fixture(scope="module")
def replaced():
    return runpy.run_path(str(DOCS / "update_benchmarks.py"))["replaced"]


@pytest.mark.parametrize("name", ["boot", "exact"])
def test_measurements_replace_the_table_between_markers(replaced, name):
    """Mutation: search for the end marker greedily over all measurements, or lose the markers."""
    page = (DOCS / "benchmarks.md").read_text()
    new = replaced(page, name, {"cold_s": 1.25}, "2000-01-01 with version 9")
    begin, end = f"<!-- bench {name}: begin -->\n", f"<!-- bench {name}: end -->"
    before, table = new.split(begin)
    assert before == page.split(begin)[0]
    assert table.split(end)[0] == (
        "Measured 2000-01-01 with version 9.\n\n| metric | value |\n|---|---|\n| `cold_s` | 1.25 |\n"
    )
    assert table.split(end)[1] == page.split(end)[1]


def test_a_measurement_without_markers_is_refused(replaced):
    """Mutation: return the page as it was."""
    with pytest.raises(SystemExit, match="no markers of `bench nothing`"):
        replaced("", "nothing", {}, "")
