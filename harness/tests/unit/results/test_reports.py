from __future__ import annotations

import xml.etree.ElementTree as ElementTree

import pytest

from harness.errors import SetupError, UsageError
from harness.results.reports import write_reports
from harness.tests.unit.results.sample import mixed, record, stored


def test_the_same_records_give_the_same_reports(tmp_path):
    """Mutation: write the time of the report into it."""
    run = stored(tmp_path / "r", mixed())
    paths = write_reports(run.directory)
    first = {name: path.read_bytes() for name, path in paths.items()}
    assert set(first) == {"report.html", "junit.xml", "results.ktap", "kcidb.json"}
    assert ElementTree.fromstring(first["junit.xml"]) is not None and first["results.ktap"].startswith(
        b"KTAP version 1\n"
    )
    assert {name: path.read_bytes() for name, path in write_reports(run.directory).items()} == first
    assert not [path for path in run.directory.iterdir() if path.name.startswith(".")]


def test_a_folder_without_a_run_is_refused(tmp_path):
    """Mutation: write empty reports."""
    with pytest.raises(UsageError, match="holds no results"):
        write_reports(tmp_path)


def test_a_full_disk_is_one_clear_error(tmp_path, monkeypatch):
    """Mutation: let OSError through."""
    run = stored(tmp_path / "r", [record(0)])
    monkeypatch.setattr("os.fsync", lambda _: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    with pytest.raises(SetupError, match="No space left on device"):
        write_reports(run.directory)
