"""A run's ledger: the processes it started and the files it made, so that its end, or the next run, can undo them.

A run has a folder with a lock file that it holds and a ledger file of JSON lines. Sockets, RAM files and other
files that must not outlive the run are made inside the folder. The next run takes the lock of every
folder whose owner is gone, ends the processes in its ledger (by session id, if boot id and start time match)
and removes the folder.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shutil
import signal
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType

LEDGER = "ledger.jsonl"
LOCK = "lock"
SHARED_MEMORY = Path("/dev/shm")


class Ledger:
    """The open ledger of this process; a context manager whose end undoes everything.

    `folder` is private to the run (mode 0700) and removed at the end.
    """

    def __init__(self, runs: Path) -> None:
        runs.mkdir(parents=True, exist_ok=True)
        reap(runs)
        self.folder = Path(tempfile.mkdtemp(prefix=f"{os.getpid()}-", dir=runs))
        self._owner = os.getpid()
        self._lock = os.open(self.folder / LOCK, os.O_CREAT | os.O_RDWR, 0o600)
        fcntl.flock(self._lock, fcntl.LOCK_EX)
        self._file = (self.folder / LEDGER).open("a", encoding="utf-8")
        self._processes: dict[int, int] = {}
        self._scratch = 0

    def __enter__(self) -> Ledger:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End all processes and remove the run's folder; harmless if called twice or after a fork."""
        if self._lock < 0 or self._owner != os.getpid():
            return
        for pid in list(self._processes):
            self.end_process(pid)
        self._file.close()
        shutil.rmtree(self.folder, ignore_errors=True)
        os.close(self._lock)
        self._lock = -1

    def add_process(self, pid: int) -> None:
        """Enter a child that leads a session of its own."""
        started = start_time(pid)
        self._processes[pid] = started
        self._file.write(json.dumps({"pid": pid, "started": started, "boot": boot_id()}) + "\n")
        self._file.flush()

    def end_process(self, pid: int) -> None:
        """Kill a child and its whole session, and mark it as ended."""
        started = self._processes.pop(pid, None)
        if started is None:
            return
        _end_session(pid, started)
        with contextlib.suppress(ValueError):
            self._file.write(json.dumps({"pid": pid, "ended": True}) + "\n")
            self._file.flush()

    @contextlib.contextmanager
    def scratch_folder(self, name: str) -> Iterator[Path]:
        """Make a folder inside the run's folder that is removed at the end of the block."""
        self._scratch += 1
        path = self.folder / f"{name}-{self._scratch}"
        path.mkdir()
        try:
            yield path
        finally:
            shutil.rmtree(path, ignore_errors=True)

    @contextlib.contextmanager
    def scratch_file(self, name: str) -> Iterator[Path]:
        """Yield a path inside the run's folder whose file is removed at the end of the block."""
        self._scratch += 1
        path = self.folder / f"{name}-{self._scratch}"
        try:
            yield path
        finally:
            path.unlink(missing_ok=True)

    @contextlib.contextmanager
    def memory_file(self, name: str, size_bytes: int) -> Iterator[Path]:
        """Yield a path for the RAM of a machine: on a RAM disk if one has room.

        On a disk, the pages that a machine dirties would be written back again and again.
        """
        with self.scratch_folder(name) as folder:
            if not (SHARED_MEMORY.is_dir() and shutil.disk_usage(SHARED_MEMORY).free > 2 * size_bytes):
                yield folder / name
                return
            path = SHARED_MEMORY / f"odp-harness-{self.folder.name}-{folder.name}"
            self._file.write(json.dumps({"path": str(path)}) + "\n")
            self._file.flush()
            try:
                yield path
            finally:
                path.unlink(missing_ok=True)


def reap(runs: Path) -> list[str]:
    """Undo every run below `runs` whose owner is gone; return a line for each step."""
    undone: list[str] = []
    for folder in sorted(runs.iterdir()) if runs.is_dir() else []:
        try:
            lock = os.open(folder / LOCK, os.O_RDWR)
        except OSError:
            # Just being made, or half removed: only an old one has no owner.
            with contextlib.suppress(OSError):
                if time.time() - folder.stat().st_mtime > 60:
                    shutil.rmtree(folder, ignore_errors=True)
            continue
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            processes, paths = _entries(folder / LEDGER)
            for pid, started in processes.items():
                if _end_session(pid, started):
                    undone.append(f"ended process {pid} of the run {folder.name}")
            for path in paths:
                path.unlink(missing_ok=True)
            shutil.rmtree(folder, ignore_errors=True)
            undone.append(f"removed the run folder {folder.name}")
        except BlockingIOError:
            pass
        finally:
            os.close(lock)
    return undone


def boot_id() -> str:
    """Return the running kernel's boot id; a pid is only valid with it."""
    return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()


def start_time(pid: int) -> int:
    """Return a process's start time in clock ticks since boot, 0 if it is gone. Ref: proc_pid_stat(5), field 22."""
    fields = _stat(pid)
    return int(fields[19]) if fields else 0


def _stat(pid: int) -> list[str]:
    """Read the fields of /proc/PID/stat from the third on (the state); empty if the process is gone."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return []
    return text[text.rindex(")") + 2 :].split()


def _entries(ledger: Path) -> tuple[dict[int, int], list[Path]]:
    """Read the processes of this boot that are left, {pid: start time}, and the files outside the folder."""
    alive: dict[int, int] = {}
    paths: list[Path] = []
    with contextlib.suppress(OSError):
        for line in ledger.read_text(encoding="utf-8").splitlines():
            try:
                entry = json.loads(line)
            except ValueError:
                continue  # the last line of a killed run may be incomplete
            if "path" in entry:
                paths.append(Path(entry["path"]))
            elif entry.get("ended"):
                alive.pop(entry["pid"], None)
            elif entry.get("boot") == boot_id():
                alive[entry["pid"]] = entry["started"]
    return alive, paths


def _end_session(leader: int, started: int) -> bool:
    """Kill a session that we started: its leader (if that is still the same process) and all members."""
    now = start_time(leader)
    if now and now != started:
        return False  # the pid was reused, so the session is gone too
    members = [pid for pid in _pids() if _in_session(pid, leader)]
    for pid in members:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(pid, signal.SIGKILL)
    return bool(members)


def _pids() -> list[int]:
    return [int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit()]


def _in_session(pid: int, leader: int) -> bool:
    fields = _stat(pid)
    return bool(fields) and fields[0] != "Z" and (pid == leader or int(fields[3]) == leader)
