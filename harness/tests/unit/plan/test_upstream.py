"""Upstream's tests on the host: source package to disk, and what explains a failure."""

import io
import tarfile

import pytest

from harness.errors import SetupError
from harness.plan import upstream
from harness.values.upstream import UpstreamTest

FAILED = UpstreamTest(
    3,
    "tests.test_odp.OdpTestCase.test_odp_implicit_rc_traffic",
    "fail",
    "Completion status is Local protection error",
)


def tarball(path, **files):
    with tarfile.open(path, "w:gz") as archive:
        for name, text in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(text)
            archive.addfile(member, io.BytesIO(text))
    return path


def test_only_the_tests_are_unpacked(tmp_path):
    """Mutation: take every file that has tests/ in its path."""
    files = {"x-1/tests/test_a.py": b"a", "x-1/other/tests/b.py": b"b", "x-1/README": b""}
    upstream._unpack_tests([tarball(tmp_path / "x_1.orig.tar.gz", **files)], tmp_path / "root")
    assert [str(p.relative_to(tmp_path / "root")) for p in (tmp_path / "root").rglob("*.py")] == [
        "tests/test_a.py"
    ]


def test_a_distribution_that_changes_tests_is_refused(tmp_path):
    """Mutation: look at no patches."""
    files = {"debian/patches/p": b"--- a/tests/test_a.py\n+++ b/tests/test_a.py\n"}
    with pytest.raises(SetupError, match="changes tests/"):
        upstream._unpack_tests([tarball(tmp_path / "x_1.debian.tar.gz", **files)], tmp_path / "root")


def test_a_known_defect_needs_its_evidence():
    """Mutation: leave the counter out."""
    known = upstream.explained(FAILED, "connectx-7", {"faults.failed": 1})
    assert (known.outcome, known.reason.partition(":")[0]) == ("known", "mlx5-implicit-child")
    assert upstream.explained(FAILED, "connectx-7", {}) is FAILED
    assert upstream.explained(FAILED, "connectx-5", {"faults.failed": 1}) is FAILED
