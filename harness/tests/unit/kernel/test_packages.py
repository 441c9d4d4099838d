import pytest

from harness.errors import Unsupported, UsageError
from harness.kernel.packages import Kernels, release_order


class Names:
    """An archive's index of names, as apt-cache pkgnames prints it."""

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


def test_series_that_is_gone_is_unsupported_and_a_typo_is_usage():
    """Mutation: treat both alike."""
    with pytest.raises(Unsupported, match=r"7\.2"):
        Kernels(Names("7.3.4+deb13-amd64")).resolve("7.2")
    with pytest.raises(UsageError, match="unknown kernel '7.33'"):
        Kernels(INDEX).resolve("7.33")


def test_release_order_is_numeric():
    """Mutation: compare strings."""
    assert release_order("6.1.0-9-amd64") < release_order("6.1.0-56-amd64")
