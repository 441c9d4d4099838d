"""Logs that stay beside the records."""

import gzip

from harness.plan.options import Logs
from harness.plan.plugin import keep
from harness.results.record import RunStore
from harness.tests.unit.results.sample import record


def test_logs_of_a_failed_case_are_kept_and_named(tmp_path):
    """Mutation: keep the console only."""
    store = RunStore.create(tmp_path)
    kept = keep(store, record(1, "fail", log=""), Logs("[ 1.0] BUG", gzip.compress(b'{"k":"open"}\n')))
    assert (tmp_path / kept.log).read_text() == "[ 1.0] BUG"
    assert kept.card_log.endswith(".card.jsonl.gz")
    assert gzip.decompress((tmp_path / kept.card_log).read_bytes()) == b'{"k":"open"}\n'


def test_a_full_disk_costs_logs_not_the_record(tmp_path):
    """Mutation: let the log's error end the case before its record is written."""
    store = RunStore.create(tmp_path)
    (tmp_path / "logs").rmdir()
    (tmp_path / "logs").write_text("in the way")
    kept = keep(store, record(1, "fail", log=""), Logs("[ 1.0] BUG"))
    assert (kept.verdict, kept.log) == ("fail", "")


def test_a_pass_leaves_no_logs(tmp_path):
    """Mutation: write empty files."""
    store = RunStore.create(tmp_path)
    for one, logs in ((record(1, "pass", log=""), Logs("x", b"y")), (record(2, "error", log=""), Logs())):
        kept = keep(store, one, logs)
        assert (kept.log, kept.card_log) == ("", "")
    assert list((tmp_path / "logs").iterdir()) == []
