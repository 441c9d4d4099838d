"""The cache: folders keyed by the content that made them, built once, shared by all runs, limited in size.

An entry appears by rename, so it is complete or absent; a killed build leaves a folder that the next start removes.
A process that uses an entry holds a shared lock on it, so pruning does not evict it.
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
# Other folders: not built here, or not to be evicted.
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
    """Return $ODP_HARNESS_CACHE, else a folder in the user's cache folder."""
    root = os.environ.get("ODP_HARNESS_CACHE")
    if root:
        return Path(root)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "odp-harness"


def parse_size(text: str) -> int:
    """Parse a size as 500M or 5G into bytes."""
    match = re.fullmatch(r"(\d+)([KMGT]?)(i?B)?", text.strip(), re.IGNORECASE)
    if not match:
        raise UsageError(f"{text!r} is not a size", hint="as 500M or 5G")
    return int(match.group(1)) << {"": 0, "K": 10, "M": 20, "G": 30, "T": 40}[match.group(2).upper()]


def digest(*parts: Any) -> str:
    """Compute a cache key, 16 hex digits, from all inputs of an entry (JSON values and bytes)."""
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
                f"the cache {root} cannot be created: {error.strerror}", hint="--cache DIR"
            ) from error

    def built(self, kind: str, key: str, build: Callable[[Path], None]) -> Path:
        """Return the entry's folder, calling `build(folder)` first if it does not exist.

        Other processes that need the same entry wait for the one that builds it. A full disk raises
        SetupError; an exception of `build` passes through and leaves no entry.
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
        """Return whether the entry exists now."""
        return (self.root / kind / key).is_dir()

    def discard(self, kind: str, key: str) -> None:
        """Remove a broken entry; processes that use it keep their open files."""
        with self.exclusive(f"{kind}-{key}.build"):
            _remove(self.root / kind / key)

    def entries(self) -> list[Entry]:
        """List all entries, least recently used first."""
        entries = []
        for kind in self.root.iterdir() if self.root.is_dir() else []:
            if kind.name in NO_ENTRIES or not kind.is_dir():
                continue
            for path in (p for p in kind.iterdir() if not p.name.startswith(".")):
                with contextlib.suppress(OSError):
                    entries.append(Entry(kind.name, path.name, path, _allocated(path), path.stat().st_mtime))
        return sorted(entries, key=lambda entry: entry.used)

    def prune(self, limit_bytes: int) -> list[Entry]:
        """Evict least recently used entries that no process uses until the rest fits; return the evicted ones."""
        entries = self.entries()
        total = sum(entry.size_bytes for entry in entries)
        evicted = []
        for entry in entries:
            if total <= limit_bytes:
                break
            if entry.kind not in NOT_PRUNED and self._try_remove(entry.path):
                total -= entry.size_bytes
                evicted.append(entry)
        return evicted

    def sweep(self) -> None:
        """Remove what killed builds left; a running build holds its lock and is left alone."""
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
        """Hold an exclusive lock in a block."""
        lock = self._open_lock(name)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield
        finally:
            os.close(lock)

    def close(self) -> None:
        """Release all entries."""
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
        """Take a shared lock on an entry, until `close`."""
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
    """Remove a folder atomically for others: renamed first, then emptied."""
    gone = path if path.name.startswith(".") else path.parent / f".{path.name}.{os.getpid()}.gone"
    with contextlib.suppress(FileNotFoundError):
        path.rename(gone)
        shutil.rmtree(gone, ignore_errors=True)


def _allocated(path: Path) -> int:
    """Add up the bytes on disk below a folder; holes do not count."""
    total = 0
    for folder, _, files in os.walk(path):
        for name in files:
            with contextlib.suppress(OSError):
                total += (Path(folder) / name).lstat().st_blocks * 512
    return total
