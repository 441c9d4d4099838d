"""The results directory of a run: a JSON file per record, on the disk before anything else is done with it.

    RESULTS/
      index.json                  what was to run, where, and whether the run ended
      records/NNN-<case id>.json  one Record each, in the order in which they finished
      logs/<case id>.console.log  the console of a case that did not pass, named by `Record.log`
      logs/<case id>.card.jsonl.gz  a card's conversation log of such a case, named by `Record.card_log`
      plans/NAME.toml             each plan as it was when its cases ran

A record is written to a hidden file, synced, and renamed: a reader sees whole records only, also of a run that was
killed or is still going.
"""

from __future__ import annotations

import fcntl
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path

from harness.errors import SetupError, UsageError
from harness.values.codec import DecodeError, dumps, loads
from harness.values.record import VERDICTS, Record

PLANS = "plans"
EXECUTED = ("pass", "fail", "known")
EXIT_PASS, EXIT_FAIL, EXIT_SETUP = 0, 1, 3

_NUMBERED = re.compile(r"(\d+)-.*\.json")
_NAME_LIMIT = 100


@dataclass(frozen=True)
class Index:
    """Request and state of a run.

    `about` names the command, the harness and its host; `expected` is the number of cases selected (0 if
    not known); `finished` is empty until the run has ended by itself, `interrupted` if it was stopped.
    Times are UTC, ISO 8601.
    """

    VERSION = 1

    started: str
    about: dict[str, str] = field(default_factory=dict)
    expected: int = 0
    finished: str = ""
    interrupted: bool = False


@dataclass(frozen=True)
class Run:
    """A results directory as read: index, whole records, and a line for each file that could not be read."""

    directory: Path
    index: Index
    records: tuple[Record, ...]
    damaged: tuple[str, ...] = ()

    @property
    def complete(self) -> bool:
        """True if the run ended by itself and every announced case has a record."""
        return bool(self.index.finished) and not self.index.interrupted and self.missing == 0

    @property
    def missing(self) -> int:
        """Number of announced cases without a record."""
        return max(0, self.index.expected - len(self.records))

    @property
    def status(self) -> int:
        """Exit status of the run; a run with missing or unreadable records has not passed."""
        status = exit_status(self.records)
        return EXIT_SETUP if status == EXIT_PASS and (self.missing or self.damaged) else status


class RunStore:
    """Writer of a results directory. Several processes may add to one directory at a time."""

    def __init__(self, directory: Path, index: Index, done: Sequence[str] = ()) -> None:
        self.directory = directory
        self.index = index
        self.done = done
        """Names of the cases that had a record when a run was resumed here."""

    @classmethod
    def create(cls, directory: Path, about: Mapping[str, str] | None = None, expected: int = 0) -> RunStore:
        """Make the directory of a new run; UsageError if it already holds one, SetupError if it cannot be."""
        if (directory / "index.json").exists():
            raise UsageError(
                f"{directory} already holds the results of a run",
                hint="name another directory with --results, continue with --resume, or remove this one",
            )
        store = cls(directory, Index(started=now(), about=dict(about or {}), expected=expected))
        with _disk(directory):
            for folder in ("records", "logs"):
                (directory / folder).mkdir(parents=True, exist_ok=True)
            store._write_index()
        return store

    @classmethod
    def join(cls, directory: Path, done: Sequence[str] = ()) -> RunStore:
        """Open a directory that another process made, to add records to it."""
        return cls(directory, read_index(directory), done)

    @classmethod
    def reopen(cls, directory: Path, about: Mapping[str, str]) -> RunStore:
        """Resume a run that was stopped. Cases that could not be run, or whose records are damaged, run again.

        UsageError if the directory holds no run, or one `about` something else.
        """
        _check_holds(directory)
        index = read_index(directory)
        for name, value in about.items():
            if index.about.get(name) != value:
                raise UsageError(
                    f"{directory} is of other {name}: {index.about.get(name, 'unknown')}, now {value}",
                    hint="continue it with its original options, or name another directory with --results",
                )
        done = []
        with _disk(directory):
            for path in _record_files(directory / "records"):
                name = _done(path)
                if name:
                    done.append(name)
                else:
                    path.unlink()
            store = cls(directory, replace(index, finished="", interrupted=False), done)
            store._write_index()
        return store

    def add(self, record: Record) -> Path:
        """Write one record under the next number and return its path; it is synced to the disk."""
        records = self.directory / "records"
        with _disk(records), _locked(records):
            number = _last_number(records) + 1
            path = records / f"{number:03d}-{file_name(record.case.id)}.json"
            write_atomically(path, dumps(record) + "\n")
        return path

    def keep_plan(self, name: str, text: str) -> None:
        """Copy a plan, once: its cases can then be run again even if its file changes."""
        path = self.directory / PLANS / f"{name}.toml"
        if path.exists():
            return
        with _disk(self.directory):
            path.parent.mkdir(exist_ok=True)
            write_atomically(path, text)

    def log_path(self, case_id: str, kind: str, suffix: str = ".log") -> Path:
        """Create a new file under logs/ for a log of `case_id` (`console`, `agent`, ...).

        Its `relative` path belongs in `Record.log`.
        """
        logs = self.directory / "logs"
        with _disk(logs):
            for number in range(1, 10**6):
                tail = f".{number}" if number > 1 else ""
                path = logs / f"{file_name(case_id)}{tail}.{file_name(kind)}{suffix}"
                try:
                    os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o644))
                except FileExistsError:
                    continue
                return path
        raise SetupError(f"no name left for a log of {case_id} in {logs}")

    def relative(self, path: Path) -> str:
        """Return `path` relative to the results directory, so that the directory can be moved."""
        return os.path.relpath(path, self.directory)

    def announce(self, expected: int) -> None:
        """Store the number of cases to run, once it is known."""
        if expected == self.index.expected:
            return
        self.index = replace(self.index, expected=expected)
        with _disk(self.directory):
            self._write_index()

    def finish(self, interrupted: bool = False) -> None:
        """Store that the run has ended, by itself or interrupted."""
        self.index = replace(self.index, finished=now(), interrupted=interrupted)
        with _disk(self.directory):
            self._write_index()

    def _write_index(self) -> None:
        write_atomically(self.directory / "index.json", dumps(self.index) + "\n")


def read_run(directory: Path) -> Run:
    """Read a run, finished or not. UsageError if the directory holds none."""
    _check_holds(directory)
    damaged = []
    try:
        index = read_index(directory)
    except UsageError as error:
        index = Index(started="")
        damaged.append(error.headline)
    records = []
    for path in _record_files(directory / "records"):
        try:
            records.append(read_record(path))
        except (DecodeError, OSError, UnicodeDecodeError) as error:
            damaged.append(f"records/{path.name}: {error}")
    return Run(directory, index, tuple(records), tuple(damaged))


def _check_holds(directory: Path) -> None:
    if not (directory / "records").is_dir():
        raise UsageError(
            f"{directory} holds no results", hint="name the directory that a run printed at its end"
        )


def count(records: Sequence[Record]) -> dict[str, int]:
    """Count the records of each verdict; every verdict is a key."""
    counts = dict.fromkeys(VERDICTS, 0)
    for record in records:
        counts[record.verdict] += 1
    return counts


def exit_status(records: Sequence[Record]) -> int:
    """Compute the exit status of a run: 1 if any case failed, else 3 if any could not run or none did, else 0.

    A failure outranks an error: no result of the other cases would change it.
    """
    counts = count(records)
    if counts["fail"]:
        return EXIT_FAIL
    if counts["error"] or not any(counts[verdict] for verdict in EXECUTED):
        return EXIT_SETUP
    return EXIT_PASS


def now() -> str:
    """Return the time in UTC, ISO 8601 to the second."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def file_name(text: str) -> str:
    """Make `text` a part of a file name: all but letters, digits and `._+=,` become dashes."""
    plain = re.sub(r"[^A-Za-z0-9._+=,]+", "-", text).strip("-.")
    return plain[:_NAME_LIMIT] or "case"


def write_atomically(path: Path, text: str) -> None:
    """Write `text` to `path` whole or not at all, whenever the process or the host stops."""
    hidden = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with hidden.open("w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        hidden.replace(path)
    except BaseException:
        hidden.unlink(missing_ok=True)
        raise
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def read_index(directory: Path) -> Index:
    """Read the index of a run. UsageError if it is missing or damaged."""
    path = directory / "index.json"
    try:
        return loads(Index, path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise UsageError(f"{path.name}: missing") from error
    except (DecodeError, OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{path.name}: {error}") from error


def read_record(path: Path) -> Record:
    """Read one record; DecodeError if it is not valid."""
    record = loads(Record, path.read_text(encoding="utf-8"))
    if record.verdict not in VERDICTS:
        raise DecodeError("record.verdict", f"expected one of {', '.join(VERDICTS)}, got {record.verdict!r}")
    return record


def _done(path: Path) -> str:
    """Return the case of a record whose case need not run again, else an empty string."""
    try:
        record = read_record(path)
    except (DecodeError, UnicodeDecodeError):
        return ""
    return "" if record.verdict == "error" else record.case.id


def _record_files(records: Path) -> list[Path]:
    numbered = ((_NUMBERED.fullmatch(path.name), path) for path in records.iterdir())
    return [path for _, path in sorted((int(match[1]), path) for match, path in numbered if match)]


def _last_number(records: Path) -> int:
    return max(
        (int(match[1]) for path in records.iterdir() if (match := _NUMBERED.fullmatch(path.name))), default=0
    )


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Hold the folder's lock, which dies with its holder: two processes never take the same number."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


@contextmanager
def _disk(where: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise SetupError(
            f"results cannot be written: {error.strerror or error}",
            evidence=(f"path: {error.filename or where}",),
            hint="free some space, or name a writable directory with --results",
        ) from error
