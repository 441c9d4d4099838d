"""Kernels of the distribution by series, and the user's own: unpacked with their headers, ready for a guest.

An entry of the cache holds one kernel: `vmlinuz`, and a tree `root/` with `usr/lib/modules/RELEASE` (depmod'ed)
and `usr/src/linux-headers-*`.
"""

from __future__ import annotations

import json
import lzma
import re
import shutil
from dataclasses import dataclass
from pathlib import Path

from harness.debian import Archive
from harness.errors import Unsupported, UsageError
from harness.host import require
from harness.kernel import local_tree
from harness.store import digest

RECIPE = 3

# Modules that cases load often: unpacking them here saves a second each time under TCG.
UNPACKED = ("kernel/drivers/infiniband", "kernel/drivers/net/ethernet/mellanox")

# The releases of each name that plans use. `newest` is the highest of all.
SERIES = {
    "6.1": re.compile(r"6\.1\."),
    "6.12": re.compile(r"6\.12\."),
    "7.2": re.compile(r"7\.2\."),
    "7.3": re.compile(r"7\.3\."),
    "newest": re.compile(r"\d"),
}

_IMAGE = re.compile(r"linux-image-(?P<release>\d+\.\d+\.[0-9][0-9a-z.+-]*-amd64)$")
_FLAVOUR = re.compile(r"-(cloud|rt)-amd64$|rc\d|-dbg$")


@dataclass(frozen=True)
class Kernel:
    """A kernel in the cache: its release (`uname -r`), the exact package version, and its entry.

    `tree` is the source of one that the user has built (kernel/local_tree.py).
    """

    series: str
    release: str
    version: str
    folder: Path
    tree: Path | None = None

    @property
    def vmlinuz(self) -> Path:
        """The bootable image."""
        return self.folder / "vmlinuz"

    @property
    def root(self) -> Path:
        """The tree that holds modules and headers."""
        return self.folder / "root"

    @property
    def modules(self) -> Path:
        """The folder of the modules."""
        return self.root / "usr/lib/modules" / self.release

    @property
    def build(self) -> Path:
        """The folder that modules are built with: configuration, headers, the kernel's build programs."""
        return self.root / "usr/src" / f"linux-headers-{self.release}"

    @property
    def configuration(self) -> str:
        """The text of its .config; Unsupported without headers."""
        file = self.build / ".config"
        if not file.is_file():
            raise Unsupported(f"no headers of {self.release} to build with")
        return file.read_text()

    @property
    def headers(self) -> Path:
        """The common headers (include/linux/mlx5/mlx5_ifc.h and the like)."""
        headers = sorted((self.root / "usr/src").glob("linux-headers-*-common"))
        if self.tree is not None:
            headers = [self.build]
        if not headers:
            raise Unsupported(f"the archive has no headers for {self.release}")
        return headers[0]


class Kernels:
    """Kernels that the archive has now, and those of the user's trees."""

    def __init__(self, archive: Archive) -> None:
        self.archive = archive
        self._releases: list[str] | None = None

    def releases(self) -> list[str]:
        """List the releases that have an image and headers, lowest first."""
        if self._releases is None:
            images = {m["release"] for m in map(_IMAGE.match, self.archive.names("linux-image-")) if m}
            headers = set(self.archive.names("linux-headers-"))
            self._releases = sorted(
                (r for r in images if not _FLAVOUR.search(r) and f"linux-headers-{r}" in headers),
                key=release_order,
            )
        return self._releases

    def resolve(self, series: str) -> str:
        """Find the release of a name: the newest of a series, an exact release, or that of a tree.

        UsageError for a name that is none of them, Unsupported for a series that the archive no longer has.
        """
        folder = local_tree.named(series)
        if folder is not None:
            return local_tree.find(folder).release
        if series not in SERIES:
            if series in self.releases():
                return series
            raise UsageError(
                f"unknown kernel {series!r}",
                [f"series: {', '.join(SERIES)}", f"newest release: {self.releases()[-1]}"],
                "odp-harness kernel list, or the folder of a kernel tree that is built",
            )
        matching = [release for release in self.releases() if SERIES[series].match(release)]
        if not matching:
            raise Unsupported(f"the archive has no kernel of the series {series} any more")
        return matching[-1]

    def check(self, name: str) -> None:
        """Raise UsageError for a name that is no series, no tree, and no release of the archive or the cache."""
        if name not in SERIES and not self._cached(name):
            self.resolve(name)

    def get(self, series: str, version: str = "") -> Kernel:
        """Return the kernel of a name, fetched and unpacked (a tree's: copied) unless the cache has it.

        A release may have had several packages: the one of `version` is taken if it is cached, and a cached one is
        used when the archive no longer has the release.
        """
        place = local_tree.named(series)
        if place is not None:
            own = local_tree.find(place)
            copied = self.archive.store.built(
                "kernel", own.key, lambda into: own.copy(into, self.archive.host)
            )
            return Kernel(series, own.release, own.version, copied, own.source)
        cached = self._cached(series) if series not in SERIES else []
        if cached and (version in cached or series not in self.releases()):
            return self._unpacked(series, series, version if version in cached else cached[-1])
        release = self.resolve(series)
        package = self.archive.show(f"linux-image-{release}")
        if package is None:
            raise Unsupported(
                f"the archive's index has no linux-image-{release} any more", hint="odp-harness kernel list"
            )
        return self._unpacked(series, release, package.version)

    def _unpacked(self, series: str, release: str, version: str) -> Kernel:
        key = _key(release, version)
        folder = self.archive.store.built("kernel", key, lambda into: self._fetch(release, into))
        return Kernel(series, release, version, folder)

    def _cached(self, release: str) -> list[str]:
        """List the versions of a release's package that are cached."""
        files = (self.archive.store.root / "kernel").glob("[!.]*/packages.json")
        versions = ((file, json.loads(file.read_text()).get(f"linux-image-{release}", "")) for file in files)
        return sorted(version for file, version in versions if file.parent.name == _key(release, version))

    def _fetch(self, release: str, into: Path) -> None:
        """Unpack image, modules, base and headers of one release, and index the modules."""
        require("depmod")
        names = [f"linux-image-{release}", f"linux-headers-{release}"]
        for name in list(names):
            package = self.archive.show(name)
            depends = package.depends if package else ""
            # Newer kernels are split (binary, modules, base); headers need their common package. All of one version.
            stem = re.escape(release.removesuffix("-amd64"))
            names += re.findall(rf"\b(linux-(?:binary|modules|base|headers)-{stem}[\w.+-]*)", depends)
        root = into / "root"
        root.mkdir()
        versions = self.archive.unpack(dict.fromkeys(names), root)
        _merge_usr(root)
        modules = root / "usr/lib/modules" / release
        image = next(
            (p for p in (modules / "vmlinuz", root / "boot" / f"vmlinuz-{release}") if p.is_file()), None
        )
        if image is None:
            raise Unsupported(f"the packages of {release} hold no kernel image")
        image.rename(into / "vmlinuz")
        _unpack_modules(modules)
        for unused in ("boot", "usr/share", "lib", "etc"):
            shutil.rmtree(root / unused, ignore_errors=True)
        self.archive.host.run([require("depmod"), "-b", str(root / "usr"), release])
        (into / "packages.json").write_text(json.dumps(versions, indent=1))


def _key(release: str, version: str) -> str:
    return f"{release}-{digest(RECIPE, version)}"


def release_order(release: str) -> tuple[int, ...]:
    """Return a sort key for releases: the numbers in the name."""
    return tuple(int(number) for number in re.findall(r"\d+", release.removesuffix("-amd64")))


def _unpack_modules(modules: Path) -> None:
    for folder in UNPACKED:
        for packed in (modules / folder).rglob("*.ko.xz"):
            packed.with_suffix("").write_bytes(lzma.decompress(packed.read_bytes()))
            packed.unlink()


def _merge_usr(root: Path) -> None:
    """Move lib/ into usr/lib/: older packages are not merged."""
    lib = root / "lib" / "modules"
    if lib.is_dir():
        target = root / "usr/lib/modules"
        target.mkdir(parents=True, exist_ok=True)
        for folder in lib.iterdir():
            shutil.copytree(folder, target / folder.name, symlinks=True, dirs_exist_ok=True)
        shutil.rmtree(root / "lib")
