"""The cache: folders keyed by the content that made them, built once, shared by all runs, limited in size.

An entry appears by rename, so it is whole or absent; a build that was killed leaves a folder that the next
start sweeps away. A process that uses an entry holds a shared lock on it, so pruning never pulls
it away.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import json
import os
import re
import shutil
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.errors import SetupError, UsageError

DEFAULT_LIMIT_BYTES = 30 << 30
# Folders beside the entries: not built by us, or not to be pulled away.
NO_ENTRIES = ("locks", "runs", "venv")
NOT_PRUNED = ("apt",)


@dataclass(frozen=True)
class Entry:
    """One folder of the cache: allocated size in bytes, last use in seconds since the epoch."""

    kind: str
    key: str
    path: Path
    size_bytes: int
    used: float


def default_root() -> Path:
    """$ODP_HARNESS_CACHE, else the user's cache folder."""
    given = os.environ.get("ODP_HARNESS_CACHE")
    if given:
        return Path(given)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "odp-harness"


def parse_size(text: str) -> int:
    """Bytes of a size as people write it: 500M, 5G."""
    match = re.fullmatch(r"(\d+)([KMGT]?)(i?B)?", text.strip(), re.IGNORECASE)
    if not match:
        raise UsageError(f"{text!r} is no size", hint="as 500M or 5G")
    return int(match.group(1)) << {"": 0, "K": 10, "M": 20, "G": 30, "T": 40}[match.group(2).upper()]


def digest(*parts: Any) -> str:
    """A key from everything that shapes an entry (JSON values and bytes), 16 hex digits."""
    sha = hashlib.sha256()
    for part in parts:
        data = part if isinstance(part, bytes) else json.dumps(part, sort_keys=True).encode()
        sha.update(len(data).to_bytes(8, "big") + data)
    return sha.hexdigest()[:16]


class Store:
    """The cache under `root`."""

    def __init__(self, root: Path, limit_bytes: int = DEFAULT_LIMIT_BYTES) -> None:
        self.root = root
        self.limit_bytes = limit_bytes
        self._held: dict[Path, int] = {}
        try:
            (root / "locks").mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise SetupError(
                f"the cache {root} cannot be made: {error.strerror}", hint="--cache DIR"
            ) from error

    def built(self, kind: str, key: str, build: Callable[[Path], None]) -> Path:
        """Return the entry's folder, calling `build(folder)` first if it does not exist.

        Other processes that want the same entry wait for the one that builds it. A full disk raises
        SetupError; whatever `build` raises passes through and leaves no entry.
        """
        path = self.root / kind / key
        self._hold(path)
        if path.is_dir():
            os.utime(path)
            return path
        with self.exclusive(f"{kind}-{key}.build"):
            if not path.is_dir():
                self._build(path, build)
        self.prune(self.limit_bytes)
        return path

    def has(self, kind: str, key: str) -> bool:
        """Whether the entry exists now."""
        return (self.root / kind / key).is_dir()

    def discard(self, kind: str, key: str) -> None:
        """Remove an entry that turned out to be broken; whoever uses it now keeps its open files."""
        with self.exclusive(f"{kind}-{key}.build"):
            _remove(self.root / kind / key)

    def entries(self) -> list[Entry]:
        """All entries, least recently used first."""
        found = []
        for kind in self.root.iterdir() if self.root.is_dir() else []:
            if kind.name in NO_ENTRIES or not kind.is_dir():
                continue
            for path in (p for p in kind.iterdir() if not p.name.startswith(".")):
                with contextlib.suppress(OSError):
                    found.append(Entry(kind.name, path.name, path, _allocated(path), path.stat().st_mtime))
        return sorted(found, key=lambda entry: entry.used)

    def prune(self, limit_bytes: int) -> list[Entry]:
        """Remove least recently used entries that nobody uses until the rest fits; returns what went."""
        entries = self.entries()
        total = sum(entry.size_bytes for entry in entries)
        gone = []
        for entry in entries:
            if total <= limit_bytes:
                break
            if entry.kind not in NOT_PRUNED and self._try_remove(entry.path):
                total -= entry.size_bytes
                gone.append(entry)
        return gone

    def sweep(self) -> None:
        """Remove what killed builds left; a build that is going on holds its lock and is left alone."""
        for path in self.root.glob("*/.*"):
            if path.parent.name in (*NO_ENTRIES, *NOT_PRUNED):
                continue
            key = path.name[1:].removesuffix(".gone").rpartition(".")[0]
            lock = self._open_lock(f"{path.parent.name}-{key}.build")
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                _remove(path)
            except BlockingIOError:
                pass
            finally:
                os.close(lock)

    def _open_lock(self, name: str) -> int:
        return os.open(self.root / "locks" / name, os.O_CREAT | os.O_RDWR, 0o600)

    @contextlib.contextmanager
    def exclusive(self, name: str) -> Iterator[None]:
        """Keep other processes out of a block."""
        lock = self._open_lock(name)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield
        finally:
            os.close(lock)

    def close(self) -> None:
        """Let go of all entries."""
        for lock in self._held.values():
            os.close(lock)
        self._held.clear()

    def _build(self, path: Path, build: Callable[[Path], None]) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        for stale in path.parent.glob(f".{path.name}.*"):
            _remove(stale)
        folder = Path(tempfile.mkdtemp(prefix=f".{path.name}.", dir=path.parent))
        try:
            build(folder)
            folder.chmod(0o755)
            folder.rename(path)
        except OSError as error:
            if error.errno != errno.ENOSPC:
                raise
            raise SetupError(
                f"the disk of the cache is full while building {path.parent.name}/{path.name}",
                [f"cache: {self.root}", f"free: {shutil.disk_usage(self.root).free >> 20} MiB"],
                "odp-harness cache --prune 5G, or --cache on a larger disk",
            ) from error
        finally:
            _remove(folder)

    def _hold(self, path: Path) -> None:
        """A shared lock on an entry, kept until `close`."""
        if path not in self._held:
            lock = self._open_lock(f"{path.parent.name}-{path.name}")
            fcntl.flock(lock, fcntl.LOCK_SH)
            self._held[path] = lock

    def _try_remove(self, path: Path) -> bool:
        if path in self._held:
            return False
        lock = self._open_lock(f"{path.parent.name}-{path.name}")
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            _remove(path)
            return True
        except BlockingIOError:
            return False
        finally:
            os.close(lock)


def _remove(path: Path) -> None:
    """Remove a folder at once as far as others see it: renamed away, then emptied."""
    gone = path if path.name.startswith(".") else path.parent / f".{path.name}.{os.getpid()}.gone"
    with contextlib.suppress(FileNotFoundError):
        path.rename(gone)
        shutil.rmtree(gone, ignore_errors=True)


def _allocated(path: Path) -> int:
    """Bytes on disk below a folder; holes do not count."""
    total = 0
    for folder, _, files in os.walk(path):
        for name in files:
            with contextlib.suppress(OSError):
                total += (Path(folder) / name).lstat().st_blocks * 512
    return total
