"""Unpack the compiler that built a kernel into a root of its own, so that any host builds matching modules.

A kernel's configuration states its compiler to the package's version; the archive mostly still has it. Make and
the kernel's own build programs come from the same suites. The root is entered by chroot(1) in a mount
namespace, so nothing of the host but /dev is visible there; except if the host's own compiler built the kernel.
"""

from __future__ import annotations

import os
import re
import shutil
from dataclasses import dataclass
from pathlib import Path

from harness.debian import Archive
from harness.errors import SetupError, Unsupported
from harness.host import require
from harness.kernel import host_toolchain
from harness.kernel.packages import Kernel
from harness.store import digest

RECIPE = 3

# Programs besides the compiler that a module's makefiles call.
PROGRAMS = ("make", "dash", "bash", "coreutils", "sed", "grep", "mawk", "findutils", "diffutils")
# Names that a package's installation would have made. Ref: Debian dash.postinst, mawk.postinst
NAMES = {"sh": "dash", "awk": "mawk"}
PATH = "/usr/local/bin:/usr/bin:/usr/sbin"
MOUNTS = ("dev", "proc", "usr/src", "build")
_COMPILER = re.compile(r'CONFIG_CC_VERSION_TEXT="\S*?(?P<name>gcc-\d+) \(Debian (?P<version>[^)]+)\)')
ENTER = Path(__file__).with_name("enter_root.sh")


@dataclass(frozen=True)
class Toolchain:
    """A root to build in; `compiler` is the package with its version, `matches` whether it is the kernel's own.

    `make` are the compiler's flags for make, `folders` are the host's folders to mount in the root.
    """

    root: Path
    compiler: str
    matches: bool
    make: tuple[str, ...] = ()
    folders: tuple[str, ...] = ()

    @property
    def key(self) -> str:
        """Cache key of the root."""
        return self.root.name

    def command(self, kernel: Kernel, work: Path, argv: tuple[str, ...]) -> list[str]:
        """Write a command that runs `argv` in the root, with the folder `work` at /build."""
        own = [] if os.geteuid() == 0 else ["--user", "--map-root-user"]
        return [
            *(require("unshare"), *own, "--mount", "--pid", "--fork", "--kill-child", "--"),
            *("sh", str(ENTER), str(self.root), str(kernel.root / "usr/src"), str(work)),
            " ".join(self.folders),
            *("/usr/bin/env", "-i", f"PATH={PATH}", "LC_ALL=C.UTF-8", *argv),
        ]


def compiler_of(configuration: str) -> tuple[str, str]:
    """Read the compiler's package and version from a .config; Unsupported if it is no Debian gcc."""
    match = _COMPILER.search(configuration)
    if match is None:
        stated = re.search(r"CONFIG_CC_VERSION_TEXT=.*", configuration)
        raise Unsupported(
            "this kernel states no compiler of the distribution", [stated.group() if stated else ""]
        )
    return match["name"], match["version"]


def toolchain(kernel: Kernel, archive: Archive, more: tuple[str, ...] = ()) -> Toolchain:
    """Return the root for a kernel's modules with the packages `more` in it, fetched unless it is cached.

    A compiler version that the archive no longer has is replaced by the newest of the same name. For a tree of the
    user the host must have the compiler.
    """
    if kernel.tree is not None:
        tools = host_toolchain.find(kernel, archive, more)
        return Toolchain(tools.root, tools.compiler, True, tools.make, tools.folders)
    name, version = compiler_of(kernel.configuration)
    offers = archive.offers(name)
    if not offers:
        raise Unsupported(f"the archive has no {name} any more, which built {kernel.release}")
    matches = version in offers
    chosen = version if matches else next(iter(offers))
    kbuild, kbuild_version = _kbuild(kernel, archive)
    names = [f"{name}={chosen}", f"{kbuild}={kbuild_version}", *PROGRAMS, *more]

    def fetch(into: Path) -> None:
        archive.unpack_closure(names, into, suite=offers[chosen])
        _finish(into)

    key = f"{name}-{digest(RECIPE, names, offers[chosen])}"
    return Toolchain(archive.store.built("toolchain", key, fetch), f"{name} {chosen}", matches)


def _kbuild(kernel: Kernel, archive: Archive) -> tuple[str, str]:
    """Find the package of the kernel's build programs; one version fits all point releases of a series."""
    package = archive.show(f"linux-headers-{kernel.release}")
    match = re.search(r"\blinux-kbuild-[\w.+~-]+", package.depends if package else "")
    if match is None:
        raise Unsupported(f"the archive's index has no linux-headers-{kernel.release} any more")
    offers = archive.offers(match.group())
    if not offers:
        raise Unsupported(f"the archive has no {match.group()} any more")
    return match.group(), kernel.version if kernel.version in offers else next(iter(offers))


def _finish(root: Path) -> None:
    """Do what dpkg and the packages' own scripts would: merge /usr, add names and mount points."""
    for name in ("bin", "sbin", "lib", "lib64"):
        old, merged = root / name, root / "usr" / name
        merged.mkdir(parents=True, exist_ok=True)
        if old.is_dir() and not old.is_symlink():
            shutil.copytree(old, merged, symlinks=True, dirs_exist_ok=True)
            shutil.rmtree(old)
        if not old.is_symlink():
            old.symlink_to(f"usr/{name}")
    for name, program in NAMES.items():
        if not os.path.lexists(root / "usr/bin" / name):
            (root / "usr/bin" / name).symlink_to(program)
    for folder in MOUNTS:
        (root / folder).mkdir(parents=True, exist_ok=True)
    (root / "tmp").mkdir(exist_ok=True)
    for unused in ("usr/share/doc", "usr/share/man", "usr/share/locale", "usr/share/info"):
        shutil.rmtree(root / unused, ignore_errors=True)
    if not list((root / "usr/bin").glob("*gcc-*")):
        raise SetupError("the compiler's packages have no compiler in them")
