from __future__ import annotations

import errno
import multiprocessing
import os
import signal
from pathlib import Path

import pytest

from harness.errors import SetupError, UsageError
from harness.results.record import (
    Index,
    Run,
    RunStore,
    count,
    exit_status,
    file_name,
    read_run,
    write_atomically,
)
from harness.tests.unit.results.sample import hostile, mixed, record, stored


def test_a_run_reads_back_as_it_was_written(tmp_path):
    """Mutation: sort the files by name as text: the tenth record comes before the second."""
    records = mixed() + [hostile()] + [record(i, faults=3) for i in range(1000, 1200)]
    run = stored(tmp_path / "run", records, command="run all")
    assert run.records == tuple(records)
    assert run.complete and not run.damaged and run.index.about == {"command": "run all"}


def test_an_unfinished_run_yields_its_records(tmp_path):
    """Mutation: let read_run raise on a bad file: everything else of the run is lost."""
    store = RunStore.create(tmp_path / "run", expected=3)
    first = store.add(record(0))
    second = store.add(record(1))
    second.write_text(second.read_text()[:50])
    first.with_name(".003-x.json.17.tmp").write_text("{")
    first.with_name("004-verdict.json").write_text(
        first.read_text().replace('"verdict":"pass"', '"verdict":"fine"')
    )
    run = read_run(tmp_path / "run")
    assert run.records == (record(0),)
    assert [line.split(":")[0] for line in run.damaged] == [
        "records/" + second.name,
        "records/004-verdict.json",
    ]
    assert not run.complete and run.missing == 2
    assert store.add(record(2)).name.startswith("005-")


def test_a_lost_index_does_not_lose_the_records(tmp_path):
    """Mutation: refuse a run without an index."""
    stored(tmp_path / "run", [record(0)])
    (tmp_path / "run" / "index.json").unlink()
    run = read_run(tmp_path / "run")
    assert run.records == (record(0),) and run.damaged == ("index.json: missing",) and not run.complete


def test_a_resumed_run_continues_with_the_cases_that_are_left(tmp_path):
    """Mutations: count errors, or damaged records, as done; resume a run of other plans."""
    store = RunStore.create(tmp_path / "run", {"harness": "1", "plans": "x"}, expected=4)
    paths = [store.add(record(number, verdict)) for number, verdict in enumerate(("pass", "error", "known"))]
    store.add(record(3)).write_text("{")
    store.finish(interrupted=True)
    with pytest.raises(UsageError, match="of other plans: x, now y"):
        RunStore.reopen(tmp_path / "run", {"harness": "1", "plans": "y"})
    again = RunStore.reopen(tmp_path / "run", {"harness": "1", "plans": "x"})
    assert again.done == [record(0).case.id, record(2).case.id]
    run = read_run(tmp_path / "run")
    assert run.records == (record(0), record(2, "known")) and not run.damaged
    assert not run.index.finished and not run.index.interrupted
    assert not paths[1].exists()


def test_other_directories_are_refused(tmp_path):
    """Mutation: overwrite the results of another run."""
    with pytest.raises(UsageError, match="holds no results"):
        read_run(tmp_path)
    stored(tmp_path / "run", [record(0)])
    with pytest.raises(UsageError, match="already holds"):
        RunStore.create(tmp_path / "run")
    (tmp_path / "file").write_text("")
    with pytest.raises(SetupError, match="cannot be written"):
        RunStore.create(tmp_path / "file" / "run")


@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_a_kill_while_writing_leaves_the_old_text(tmp_path, call):
    """Kill it before the data are synced and before the rename: the old text stays.

    Mutation: write to the path itself.
    """
    store = RunStore.create(tmp_path / "run")
    path = store.add(record(0))
    before = path.read_text()

    def die(*_args, **_kwargs):
        os.kill(os.getpid(), signal.SIGKILL)

    child = os.fork()
    if not child:
        if call == "fsync":
            os.fsync = die
        else:
            type(path).replace = die
        write_atomically(path, "new" * 9999)
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
    assert path.read_text() == before
    assert len(list(path.parent.iterdir())) == 2, "a hidden file is left over"
    assert read_run(tmp_path / "run").records == (record(0),)


def test_disk_full_is_one_clear_error_and_leaves_nothing(tmp_path, monkeypatch):
    """Mutation: drop the unlink: a hidden file stays."""
    store = RunStore.create(tmp_path / "run")

    def full(_descriptor):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(SetupError, match="No space left on device"):
        store.add(record(0))
    assert not list((tmp_path / "run" / "records").iterdir())


def _add_many(directory, first):
    store = RunStore.join(directory)
    for number in range(first, first + 25):
        store.add(record(number, faults=1))


def test_processes_share_a_directory(tmp_path):
    """Mutation: do not take the lock: two records get one number, or one overwrites the other."""
    RunStore.create(tmp_path / "run")
    workers = [multiprocessing.Process(target=_add_many, args=(tmp_path / "run", n * 100)) for n in range(3)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    names = sorted(path.name for path in (tmp_path / "run" / "records").iterdir())
    assert [int(name.split("-")[0]) for name in names] == list(range(1, 76))


def test_log_paths_differ_and_are_relative(tmp_path):
    """Mutation: give two logs of one kind the same name."""
    store = RunStore.create(tmp_path / "run")
    paths = [store.log_path("a/b[c]", kind) for kind in ("console", "console", "agent")]
    assert len(set(paths)) == 3
    assert store.relative(paths[0]) == "logs/a-b-c.console.log"


def test_file_names_stay_in_their_folder():
    """Mutation: let the slash through."""
    for text in ("../../etc/passwd", "a/b", "", ".", "..", "x" * 500, "\x00\n", "é"):
        name = file_name(text)
        assert name and "/" not in name and not name.startswith(".") and len(name) <= 100


@pytest.mark.parametrize(
    ("verdicts", "status"),
    [
        ("", 3),
        ("skip skip", 3),
        ("pass", 0),
        ("known", 0),
        ("pass known skip", 0),
        ("pass fail skip", 1),
        ("pass error", 3),
        ("skip error", 3),
        ("error fail", 1),
    ],
)
def test_exit_status(verdicts, status):
    """Mutation: count skips as executed."""
    assert exit_status([record(i, verdict) for i, verdict in enumerate(verdicts.split())]) == status


@pytest.mark.parametrize(("verdicts", "expected", "status"), [("pass", 1, 0), ("pass", 2, 3), ("fail", 2, 1)])
def test_cases_without_a_record_have_not_passed(verdicts, expected, status):
    """Mutation: look at the records only."""
    records = tuple(record(i, verdict) for i, verdict in enumerate(verdicts.split()))
    assert Run(Path(), Index("", expected=expected, finished="x"), records).status == status
    assert Run(Path(), Index("", expected=1), records, ("records/1.json: cut",)).status == (status or 3)


def test_count_names_every_verdict():
    """Mutation: leave verdicts without a case out."""
    assert count(mixed()) == {"pass": 9, "fail": 1, "skip": 2, "error": 1, "known": 1}
    assert count([]) == {"pass": 0, "fail": 0, "skip": 0, "error": 0, "known": 0}


def test_finish_and_announce(tmp_path):
    """Mutation: do not write the index."""
    store = RunStore.create(tmp_path / "run")
    store.announce(2)
    store.add(record(0))
    store.finish(interrupted=True)
    run = read_run(tmp_path / "run")
    assert run.index.finished and run.index.interrupted and run.missing == 1 and not run.complete
