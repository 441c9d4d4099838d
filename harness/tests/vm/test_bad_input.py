"""Bad input on the command line: one clear error and the right exit status."""

import os
import subprocess

import pytest

from harness.tests.vm.conftest import harness


def test_broken_plan_is_usage(tmp_path):
    """Mutation: exit with pytest's own status."""
    plan = tmp_path / "x.toml"
    plan.write_text('title = "x"\n[workload]\noperation = "wirte"\n')
    result = harness("run", plan)
    assert result.returncode == 2
    assert "x.toml:3: workload.operation: 'wirte' is none of" in result.stderr
    assert "'write'?" in result.stderr


def test_unknown_series_and_missing_file_are_usage(tmp_path, session):
    """Mutation: exit 3."""
    cache = ("--cache", session.store.root)
    result = harness("kernel", "list", "9.9", *cache)
    assert (result.returncode, "unknown kernel '9.9'" in result.stderr) == (2, True)
    result = harness("run", tmp_path / "none.toml", *cache)
    assert (result.returncode, "does not exist" in result.stderr) == (2, True)


def test_nothing_executed_is_not_success(tmp_path, session):
    """Mutation: exit 0 when no case matches."""
    result = harness(
        "run", "-k", "nothing_has_this_name", "--results", tmp_path / "r", "--cache", session.store.root
    )
    assert result.returncode == 3, result.stderr
    assert "no case was executed" in result.stderr


def test_an_unreachable_archive_is_a_setup_error(tmp_path):
    """Mutation: continue with empty lists."""
    result = harness("kernel", "list", "--cache", tmp_path, "--mirror", "http://127.0.0.1:9/debian")
    assert result.returncode == 3, result.stderr
    assert "archive cannot be read" in result.stderr
    assert "--mirror" in result.stderr


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting a small disk needs root")
def test_a_full_disk_is_an_error_and_leaves_no_entry(tmp_path, session):
    """Use a disk of 64 MiB, too small for a kernel. Mutation: keep the folder of a failed build."""
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64m", "tmpfs", str(tmp_path)], check=True)
    try:
        (tmp_path / "apt").symlink_to(session.archive.root.parent)
        result = harness("kernel", "fetch", "newest", "--cache", tmp_path)
        assert result.returncode == 3, result.stdout
        assert "No space left" in result.stderr or "is full" in result.stderr
        assert "--prune" in result.stderr
        kernels = tmp_path / "kernel"
        assert not kernels.is_dir() or list(kernels.iterdir()) == []
    finally:
        subprocess.run(["umount", str(tmp_path)], check=True)


def test_read_only_checkout_is_enough(tmp_path, session):
    """List and check plans, which writes nothing. Mutation: make the results folder before the plans are read."""
    result = harness("run", "--list", cwd="/", PYTHONDONTWRITEBYTECODE="1")
    assert result.returncode == 0, result.stderr
    assert "odp-write/newest/soft-roce" in result.stdout
