import json
import re

import pytest

from harness.debian import Package
from harness.errors import Unsupported, UsageError
from harness.kernel.packages import RECIPE, Kernel, Kernels, release_order
from harness.store import Store, digest


class Names:
    """Make an archive with an index of names, as apt-cache pkgnames prints it."""

    def __init__(self, *releases, without_headers=()):
        self.all = [f"linux-image-{r}" for r in (*releases, *without_headers)]
        self.all += [f"linux-headers-{r}" for r in releases]

    def names(self, prefix):
        return [name for name in self.all if name.startswith(prefix)]


INDEX = Names(
    "6.1.0-9-amd64",
    "6.1.0-56-amd64",
    "6.12.99+deb13-amd64",
    "6.12.118+deb12-amd64",
    "6.12.118+deb13-amd64",
    "7.2.13+deb14-amd64",
    "7.2.13+deb14-cloud-amd64",
    "7.2.13+deb14-rt-amd64",
    "7.4~rc1-amd64",
    "7.3.4+deb13-amd64",
    without_headers=("7.3.5+deb13-amd64",),
)


@pytest.mark.parametrize(
    ("series", "release"),
    [
        ("6.1", "6.1.0-56-amd64"),
        ("6.12", "6.12.118+deb13-amd64"),
        ("7.2", "7.2.13+deb14-amd64"),
        ("7.3", "7.3.4+deb13-amd64"),
        ("newest", "7.3.4+deb13-amd64"),
        ("6.12.99+deb13-amd64", "6.12.99+deb13-amd64"),
    ],
)
def test_series_resolves_to_its_newest_release(series, release):
    """Mutation: sort as text (6.1.0-9 wins), take cloud or rc kernels, or kernels without headers."""
    assert Kernels(INDEX).resolve(series) == release


def test_a_removed_series_is_unsupported_and_a_typo_is_usage():
    """Mutation: treat both alike."""
    with pytest.raises(Unsupported, match=r"7\.2"):
        Kernels(Names("7.3.4+deb13-amd64")).resolve("7.2")
    with pytest.raises(UsageError, match="unknown kernel '7.33'"):
        Kernels(INDEX).resolve("7.33")


GONE = "7.3.1+deb13-amd64"


@pytest.fixture
def cached(tmp_path):
    """Make an archive with one kernel, and a cache with two packages of another and one of an older recipe."""

    def keep(release, version, key=None):
        folder = tmp_path / "kernel" / (key or f"{release}-{digest(RECIPE, version)}")
        folder.mkdir(parents=True)
        (folder / "packages.json").write_text(json.dumps({f"linux-image-{release}": version}))
        return folder

    store = Store(tmp_path)
    archive = Names("7.3.4+deb13-amd64")
    archive.store, archive.show = store, lambda name: Package(name, "7.3.4-2", "")
    yield Kernels(archive), keep
    store.close()


def test_a_removed_release_is_taken_from_the_cache(cached):
    """Mutations: look in the archive only; take an entry of another recipe, or of another package version."""
    kernels, keep = cached
    keep(GONE, "7.3.1-1", f"{GONE}-of-old")
    with pytest.raises(UsageError, match=f"unknown kernel '{re.escape(GONE)}'"):
        kernels.get(GONE, "7.3.1-1")
    one, two = keep(GONE, "7.3.1-1"), keep(GONE, "7.3.1-2")
    assert kernels.get(GONE, "7.3.1-1") == Kernel(GONE, GONE, "7.3.1-1", one)
    assert kernels.get(GONE).folder == kernels.get(GONE, "7.3.1-3").folder == two
    still = "7.3.4+deb13-amd64"
    old, new = keep(still, "7.3.4-1"), keep(still, "7.3.4-2")
    assert kernels.get(still, "7.3.4-1").folder == old
    assert {kernels.get(name, version).folder for name in (still, "7.3") for version in ("", "7.3.4-9")} == {
        new
    }


def test_release_order_is_numeric():
    """Mutation: compare strings."""
    assert release_order("6.1.0-9-amd64") < release_order("6.1.0-56-amd64")
