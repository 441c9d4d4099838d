"""Use the host's own compiler for a kernel tree of the user, in a root of its own.

The root has only mount points for the host's folders of programs. It is entered as a Debian kernel's is
(kernel/toolchain.py), so that builds do not depend on where the cache lies.
"""

from __future__ import annotations

import os
import re
import shutil
from dataclasses import dataclass
from pathlib import Path

from harness.debian import Archive
from harness.errors import SetupError
from harness.host import require
from harness.kernel import config
from harness.kernel.packages import Kernel
from harness.store import digest

RECIPE = 1
PATH = ("/usr/local/bin", "/usr/bin", "/bin")
# The host's folders in the root; of /usr all but src, where the kernel's headers are mounted.
SEEN = ("bin", "sbin", "lib", "lib32", "lib64", "libx32", "etc", "opt")
PLACES = ("dev", "proc", "tmp", "build", "usr/src")
_VERSION = re.compile(r"(?P<name>\S*(?:gcc|clang)\S*)?.*?(?P<major>\d+)\.\d+")


@dataclass(frozen=True)
class HostTools:
    """The root, the host's folders to mount there, the compiler's version text, and its flags for make."""

    root: Path
    folders: tuple[str, ...]
    compiler: str
    make: tuple[str, ...]


def find(kernel: Kernel, archive: Archive, more: tuple[str, ...]) -> HostTools:
    """Find the compiler that built the kernel; SetupError without it, or without one of the programs `more`."""
    for program in ("make", *more):
        require(program)
    options = config.read(kernel.configuration)
    stated = options.get("CC_VERSION_TEXT", "").strip('"')
    name = _compiler(kernel, archive, stated)
    flags = (f"CC={name}",)
    if options.get("LD_IS_LLD") == "y":
        flags = (f"LLVM={name.removeprefix('clang') or 1}",)
    folders = tuple(_folders())

    def make(into: Path) -> None:
        for place in (*folders, *PLACES):
            (into / place).mkdir(parents=True, exist_ok=True)
        for place in SEEN:
            if (Path("/") / place).is_symlink():
                (into / place).symlink_to((Path("/") / place).readlink())

    root = archive.store.built("toolchain", f"host-{digest(RECIPE, stated, folders)}", make)
    return HostTools(root, folders, stated, flags)


def _folders() -> list[str]:
    usr = [
        f"usr/{path.name}" for path in sorted(Path("/usr").iterdir()) if path.is_dir() and path.name != "src"
    ]
    beside = [name for name in SEEN if (Path("/") / name).is_dir() and not (Path("/") / name).is_symlink()]
    return [*(name for name in usr if not (Path("/") / name).is_symlink()), *beside]


def _compiler(kernel: Kernel, archive: Archive, stated: str) -> str:
    """Find the program whose --version is the text in the kernel's configuration."""
    tried = []
    for name in candidates(stated):
        path = shutil.which(name, path=os.pathsep.join(PATH))
        if path is None:
            tried.append(f"{name}: not in {', '.join(PATH)}")
            continue
        version = archive.host.run([path, "--version"], check=False).output.partition("\n")[0]
        if _nameless(version) == _nameless(stated):
            return name
        tried.append(f"{name}: {version}")
    raise SetupError(
        f"this host does not have the compiler that built {kernel.release}: {stated or 'none is stated'}",
        tried,
        "modules must be built by the same one: install it, or build the tree again with the host's",
    )


def candidates(stated: str) -> list[str]:
    """List the names that a compiler with the version text `stated` may have."""
    match = _VERSION.match(stated)
    family = "clang" if "clang" in stated else "gcc"
    own = match["name"] if match and match["name"] else family
    return list(dict.fromkeys([own, family, *([f"{family}-{match['major']}"] if match else [])]))


def _nameless(version: str) -> str:
    """Drop the first word of gcc's version text: it is argv[0]."""
    return re.sub(r"^\S*gcc\S*\s", "", version)
