"""The compiler that built a tree of the user's: this machine's own, in a root of its own.

The root has nothing but places to mount the machine's folders of programs on. It is entered as a Debian kernel's is
(kernel/toolchain.py), so what is built there is the same on any place of the disk.
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
# Folders that are seen in the root; of /usr all but the sources, where the kernel's come.
SEEN = ("bin", "sbin", "lib", "lib32", "lib64", "libx32", "etc", "opt")
PLACES = ("dev", "proc", "tmp", "build", "usr/src")
_VERSION = re.compile(r"(?P<name>\S*(?:gcc|clang)\S*)?.*?(?P<major>\d+)\.\d+")


@dataclass(frozen=True)
class HostTools:
    """The root, the host's folders to mount there, the compiler's own words, and what make is told of it."""

    root: Path
    folders: tuple[str, ...]
    compiler: str
    make: tuple[str, ...]


def find(kernel: Kernel, archive: Archive, more: tuple[str, ...]) -> HostTools:
    """SetupError if the compiler is not the one that built the kernel, or if one of the programs `more` is not here."""
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
    """The program that says of itself what the kernel's configuration says of its compiler."""
    said = []
    for name in candidates(stated):
        path = shutil.which(name, path=os.pathsep.join(PATH))
        if path is None:
            said.append(f"{name}: not in {', '.join(PATH)}")
            continue
        words = archive.host.run([path, "--version"], check=False).output.partition("\n")[0]
        if _nameless(words) == _nameless(stated):
            return name
        said.append(f"{name}: {words}")
    raise SetupError(
        f"this machine has not got the compiler that built {kernel.release}: {stated or 'none is stated'}",
        said,
        "modules must be built by the same one: install it, or make the tree again with this machine's",
    )


def candidates(stated: str) -> list[str]:
    """What a compiler may be called of which the configuration says `stated`."""
    found = _VERSION.match(stated)
    family = "clang" if "clang" in stated else "gcc"
    own = found["name"] if found and found["name"] else family
    return list(dict.fromkeys([own, family, *([f"{family}-{found['major']}"] if found else [])]))


def _nameless(words: str) -> str:
    """gcc calls itself by the name that it was called by."""
    return re.sub(r"^\S*gcc\S*\s", "", words)
