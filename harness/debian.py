"""Fetch packages of the distribution: resolved and verified by apt with a private root, unpacked by dpkg-deb.

The host's package state is neither read nor changed: the private root has its own lists, its own empty dpkg status
and its own sources (the host's mirror, all suites that the harness uses). An ordinary user may run it.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from harness.errors import SetupError, UsageError
from harness.host import CommandError, LocalHost, require
from harness.store import Store

KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")
CHECK_MIRROR = "check the network, or --mirror URL"
LISTS_MAX_AGE_S = 7 * 24 * 3600

# Suite, whether it comes from the security archive, and its use.
SUITES = (
    ("bookworm", False),  # 6.1
    ("bookworm-security", True),
    ("trixie", False),  # userland, 6.12
    ("trixie-security", True),
    ("trixie-backports", False),  # newer kernels side by side, QEMU
    ("sid", False),  # the newest kernels
)

# The suite of a package that several have; kernels have their version in their name.
PREFERENCES = """\
Package: *
Pin: release n=trixie
Pin-Priority: 900

Package: *
Pin: release n=trixie-security
Pin-Priority: 900

Package: qemu* seabios ipxe-qemu
Pin: release n=trixie-backports
Pin-Priority: 950
"""


@dataclass(frozen=True)
class Mirrors:
    """Base URLs of the archive and of its security archive."""

    main: str
    security: str


@dataclass(frozen=True)
class Package:
    """A binary package as the archive's index describes it."""

    name: str
    version: str
    depends: str


class Archive:
    """The distribution's archive behind one private apt root in the cache.

    `mirror` overrides the host's own; its security archive is then `MIRROR-security`.
    """

    def __init__(self, store: Store, host: LocalHost, mirror: str | None = None) -> None:
        self.store = store
        self.host = host
        self._mirror = mirror
        self._mirrors: Mirrors | None = None
        self.root = (store.root / "apt" / "root").resolve()

    def refresh(self, max_age_s: float = LISTS_MAX_AGE_S) -> None:
        """Fetch the package lists if they are missing or older than `max_age_s`."""
        with self.store.exclusive("apt"):
            stamp = self.root / "updated"
            sources = "\n".join(self.sources())
            # apt.conf has the root's path in it: a cache that was moved is set up again.
            setup = f"{self.root}\n{sources}"
            same = stamp.is_file() and stamp.read_text() == setup
            if same and time.time() - stamp.stat().st_mtime < max_age_s:
                return
            stamp.unlink(missing_ok=True)
            self._write_root(sources)
            try:
                self.host.run(["apt-get", "-q", "--error-on=any", "update"], env=self._env())
            except CommandError as error:
                raise SetupError(
                    "the distribution's archive cannot be read",
                    error.evidence,
                    error.hint or CHECK_MIRROR,
                ) from error
            stamp.write_text(setup)

    def names(self, prefix: str) -> list[str]:
        """List all package names that begin with `prefix`."""
        self.refresh()
        return self.host.run(["apt-cache", "pkgnames", prefix], env=self._env()).output.split()

    def show(self, name: str) -> Package | None:
        """Look up the package that apt would install; None if there is none."""
        self.refresh()
        shown = self.host.run(["apt-cache", "show", "--no-all-versions", name], env=self._env(), check=False)
        fields = dict(re.findall(r"^(Version|Depends): (.*)$", shown.output, re.M))
        if shown.status or "Version" not in fields:
            return None
        return Package(name, fields["Version"], fields.get("Depends", ""))

    def unpack(self, names: Iterable[str], into: Path) -> dict[str, str]:
        """Download these packages only and unpack them; return {name: version}."""
        return self._unpack(["download", *names], into)

    def offers(self, name: str) -> dict[str, str]:
        """List the versions of a package in the archive, newest first: {version: suite}."""
        self.refresh()
        listed = self.host.run(["apt-cache", "madison", name], env=self._env(), check=False).output
        columns = [[part.strip() for part in line.split("|")] for line in listed.splitlines()]
        return {
            row[1]: row[2].split()[1].split("/")[0] for row in columns if len(row) == 3 and row[0] == name
        }

    def unpack_closure(self, names: Iterable[str], into: Path, suite: str = "") -> dict[str, str]:
        """Download these packages and all their dependencies, and unpack them; return {name: version}.

        `suite` is preferred for packages without a version.
        """
        preferred = ["--target-release", suite] if suite else []
        return self._unpack(["install", "--yes", "--download-only", *preferred, *names], into)

    def source(self, name: str, version: str, suites: Iterable[str], into: Path) -> list[Path]:
        """Download a source package's tarballs, upstream's and the distribution's, and return them.

        Each has the SHA-256 of the archive's signed lists. Source lists are separate: nothing else needs them.
        """
        self.refresh()
        lists, file = self.root / "source-lists", self.root / "source.list"
        own = ["-o", f"Dir::State::lists={lists}", "-o", f"Dir::Etc::sourcelist={file}"]
        with self.store.exclusive("apt-source"):
            (lists / "partial").mkdir(parents=True, exist_ok=True)
            file.write_text("\n".join(f"deb-src{line[3:]}" for line in self.sources(suites)))
            self._fetch(["apt-get", "-q", "--error-on=any", *own, "update"], self.root)
            for part in ("--tar-only", "--diff-only"):
                command = ["apt-get", "-q", *own, "source", "--download-only", "--only-source", part]
                self._fetch([*command, f"{name}={version}"], into)
        return sorted(path for path in into.iterdir() if path.is_file())

    def _unpack(self, action: list[str], into: Path) -> dict[str, str]:
        require("dpkg-deb")
        self.refresh()
        with self.host.ledger.scratch_folder("debs") as debs:
            (debs / "partial").mkdir()
            command = ["apt-get", "-o", f"Dir::Cache::archives={debs}", "-q", *action]
            try:
                self._fetch(command, debs)
            except SetupError as error:
                if error.hint != CHECK_MIRROR:
                    raise  # a full disk
                # A package may have been replaced since the lists were read: read them again, once.
                self.refresh(max_age_s=0)
                self._fetch(command, debs)
            versions = {}
            for deb in sorted(debs.glob("*.deb")):
                self.host.run(["dpkg-deb", "-x", str(deb), str(into)])
                name, version = self.host.run(
                    ["dpkg-deb", "-f", str(deb), "Package", "Version"]
                ).output.split("\n")[:2]
                versions[name.removeprefix("Package: ")] = version.removeprefix("Version: ")
        return versions

    def _fetch(self, command: list[str], debs: Path) -> None:
        try:
            self.host.run(command, env=self._env(), cwd=debs, timeout_s=1800)
        except CommandError as error:
            raise SetupError(
                "packages of the distribution's archive cannot be fetched",
                error.evidence,
                error.hint or CHECK_MIRROR,
            ) from error

    def sources(self, suites: Iterable[str] | None = None) -> list[str]:
        """Write the lines of a sources.list for these suites (all of SUITES by default)."""
        if not KEYRING.is_file():
            raise SetupError(f"{KEYRING} is missing", hint="apt-get install debian-archive-keyring")
        mirrors = self.mirrors()
        chosen = set(suites) if suites is not None else {suite for suite, _ in SUITES}
        # sid's Release files have often expired on mirrors; their signature is checked all the same.
        return [
            f"deb [signed-by={KEYRING}{' check-valid-until=no' if suite == 'sid' else ''}]"
            f" {mirrors.security if security else mirrors.main} {suite} main"
            for suite, security in SUITES
            if suite in chosen
        ]

    def mirrors(self) -> Mirrors:
        """Return the URLs of the archive: of the option, else of the host's apt."""
        if self._mirrors is None:
            self._mirrors = self._find_mirrors()
        return self._mirrors

    def _find_mirrors(self) -> Mirrors:
        if self._mirror:
            main = self._mirror.rstrip("/")
            return Mirrors(main, main + "-security")
        listed = self.host.run(
            ["apt-get", "indextargets", "--format", "$(RELEASE) $(REPO_URI)", "Created-By: Packages"]
        ).output
        main = security = ""
        debian = re.compile(r"(bookworm|trixie|forky|duke|sid|stable|testing|unstable)(-security)?$")
        for release, uri in (line.split()[:2] for line in listed.splitlines() if " " in line):
            match = debian.match(release)
            if match and match.group(2):
                security = security or uri
            elif match:
                main = main or uri
        if not main:
            raise UsageError(
                "the host's apt has no Debian archive",
                hint="--mirror URL (of a Debian archive; its security archive must be URL-security)",
            )
        return Mirrors(main, security or main.rstrip("/") + "-security")

    def _write_root(self, sources: str) -> None:
        for folder in ("lists/partial", "archives/partial", "dpkg", "parts"):
            (self.root / folder).mkdir(parents=True, exist_ok=True)
        (self.root / "dpkg" / "status").touch()
        (self.root / "sources.list").write_text(sources)
        (self.root / "preferences").write_text(PREFERENCES)
        # Take over the host's proxies and certificates, but not its hooks and paths.
        acquire = [
            line
            for line in self.host.run(["apt-config", "dump"]).output.splitlines()
            if line.startswith("Acquire::")
        ]
        root = self.root
        own = [
            f'Dir::Etc::sourcelist "{root}/sources.list";',
            f'Dir::Etc::preferences "{root}/preferences";',
            *(f'Dir::Etc::{name} "{root}/parts";' for name in ("sourceparts", "preferencesparts", "parts")),
            'Dir::Etc::main "/dev/null";',
            f'Dir::State "{root}";',
            f'Dir::State::lists "{root}/lists";',
            f'Dir::State::status "{root}/dpkg/status";',
            f'Dir::Cache "{root}";',
            f'Dir::Cache::archives "{root}/archives";',
            'APT::Architecture "amd64";',
            'APT::Architectures { "amd64"; };',
            'APT::Install-Recommends "false";',
            'APT::Sandbox::User "";',
            'Acquire::Languages "none";',
        ]
        (root / "apt.conf").write_text("\n".join([*acquire, *own]) + "\n")

    def _env(self) -> dict[str, str]:
        return {"APT_CONFIG": str(self.root / "apt.conf"), "LC_ALL": "C.UTF-8"}
