import errno
import multiprocessing
import os
import signal
import time

import pytest

from harness.errors import SetupError
from harness.store import Store, digest


def _write(text):
    return lambda folder: (folder / "content").write_text(text)


def test_builds_once(tmp_path):
    """Mutation: build when the entry exists: the second content would win."""
    store = Store(tmp_path)
    assert (store.built("kind", "key", _write("first")) / "content").read_text() == "first"
    assert (store.built("kind", "key", _write("second")) / "content").read_text() == "first"


def test_failed_build_leaves_no_entry(tmp_path):
    """Mutation: rename before building."""
    store = Store(tmp_path)

    def build(folder):
        (folder / "half").touch()
        raise SetupError("no")

    with pytest.raises(SetupError):
        store.built("kind", "key", build)
    assert not store.has("kind", "key")
    assert list((tmp_path / "kind").iterdir()) == []


def _build_slowly(root):
    def build(folder):
        (folder / "half").touch()
        time.sleep(60)

    Store(root).built("kind", "key", build)


def test_killed_build_is_repaired(tmp_path):
    """Mutation: do not remove stale folders: one is left."""
    child = multiprocessing.get_context("fork").Process(target=_build_slowly, args=(tmp_path,))
    child.start()
    while not list(tmp_path.glob("kind/.key.*/half")):
        time.sleep(0.01)
    os.kill(child.pid, signal.SIGKILL)
    child.join()
    path = Store(tmp_path).built("kind", "key", _write("whole"))
    assert [p.name for p in path.parent.iterdir()] == ["key"]
    assert (path / "content").read_text() == "whole"


def test_sweep_removes_folders_of_dead_builds(tmp_path):
    """Mutation: do not try the lock: the folder of a running build is removed, too."""
    store = Store(tmp_path)
    for name in (
        "kind/.1.2+3-amd64.abcd1234",
        "kind/.going.abcd1234",
        "kind/.old.77.gone",
        "kind/entry",
        "venv/.x.y",
    ):
        (tmp_path / name / "data").mkdir(parents=True)
    with Store(tmp_path).exclusive("kind-going.build"):
        store.sweep()
    assert sorted(p.name for p in (tmp_path / "kind").iterdir()) == [".going.abcd1234", "entry"]
    assert (tmp_path / "venv/.x.y").is_dir()


def test_prune_leaves_environment_and_lists_alone(tmp_path):
    """Keep the virtual environment that runs us. Mutation: prune every folder."""
    for kind in ("venv", "apt", "kernel"):
        (tmp_path / kind / "key").mkdir(parents=True)
        (tmp_path / kind / "key" / "data").write_bytes(bytes(8192))
    assert [entry.kind for entry in Store(tmp_path).prune(0)] == ["kernel"]


def test_a_full_disk_is_one_clear_error(tmp_path):
    """Mutation: let the OSError through."""

    def build(folder):
        raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(SetupError, match="disk of the cache is full") as caught:
        Store(tmp_path).built("kind", "key", build)
    assert "--prune" in caught.value.hint


def test_prune_evicts_the_oldest_that_is_not_in_use(tmp_path):
    """Mutation: prune newest first, or ignore locks."""
    other = Store(tmp_path)
    for number, key in enumerate(("old", "used", "new")):
        path = other.built("kind", key, lambda folder: (folder / "data").write_bytes(bytes(1 << 20)))
        os.utime(path, (number + 1, number + 1))
    other.close()
    user = Store(tmp_path)
    user.built("kind", "used", _write(""))
    os.utime(tmp_path / "kind/used", (2, 2))
    gone = Store(tmp_path).prune(1 << 20)
    assert [entry.key for entry in gone] == ["old", "new"]
    assert (tmp_path / "kind/used").is_dir()


def test_digest_separates_parts():
    """Mutation: join parts without their lengths."""
    assert digest("ab", "c") != digest("a", "bc")
    assert digest(b"x") == digest(b"x")
