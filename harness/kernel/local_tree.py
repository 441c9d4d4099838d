"""A kernel tree of the user's that is built: checked, and copied into an entry like one of a Debian kernel.

The entry has all that modules are built with (what `make bindeb-pkg` would put into a package of headers), so that the
tree may go on changing. Ref: Linux 7.3 scripts/package/install-extmod-build
"""

from __future__ import annotations

import functools
import hashlib
import os
import re
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from harness.errors import SetupError, UsageError
from harness.host import LocalHost, require
from harness.kernel import config
from harness.store import digest

RECIPE = 1
ARCHITECTURE = "x86"
IMAGE = f"arch/{ARCHITECTURE}/boot/bzImage"
RELEASE = "include/config/kernel.release"
BUILT_CONFIG = "include/config/auto.conf"
MAKE = "make -j$(nproc)"
MOVING = "let `make` come to its end there"
# What every kernel tree has, and few other folders.
MARKS = ("Makefile", "Kbuild", "drivers/infiniband/core")
# Of the source and of what was made of it, what modules are built with.
HEADERS = ("Makefile", f"arch/{ARCHITECTURE}", "include", "scripts")
MADE = (".config", "Module.symvers", f"arch/{ARCHITECTURE}/include/generated", "include", "scripts")
TOOLS = ("tools/objtool/objtool", "tools/bpf/resolve_btfids/resolve_btfids")
LISTS = ("modules.order", "modules.builtin", "modules.builtin.modinfo")
# Of some of these folders what is taken (names may go on), of all what is not.
ONLY = {
    f"arch/{ARCHITECTURE}": ("include", "Makefile", "Kbuild"),
    "include/config": ("auto.conf", "kernel.release"),
}
_NOT_THESE = ("kconfig", "dtc", "package", "dt-bindings")
_ARCHITECTURE = re.compile(r"^# Linux/(\S+) \S+ Kernel Configuration", re.M)
_OTHERS = re.compile(r"newest$|all$|\d+\.\d+")
_BUILT_WHEN = re.compile(r'#define UTS_VERSION "([^"]*)"')


def named(name: str) -> Path | None:
    """The folder, if a kernel of that name is a tree: whatever is written like a path, or is a folder that is called
    neither like a series nor like a release.
    """
    path = Path(name).expanduser()
    if os.sep in name or (path.is_dir() and not _OTHERS.match(name)):
        return path.resolve()
    return None


@functools.cache
def called(name: str) -> str:
    """What cases on a kernel are named after: a tree's release, else as it is asked for."""
    folder = named(name)
    return name if folder is None else find(folder).release


def distinct(names: Sequence[str]) -> tuple[str, ...]:
    """Names of kernels, trees by their whole path; UsageError if cases on two of them would be called the same."""
    spelled = tuple(dict.fromkeys(str(named(name) or name) for name in names))
    by_call: dict[str, str] = {}
    for name in spelled:
        other = by_call.setdefault(called(name), name)
        if other != name:
            hint = "one after the other, then odp-harness compare; or CONFIG_LOCALVERSION"
            raise UsageError(f"{other} and {name} are both called {called(name)}", (), hint)
    return spelled


def is_built(folder: Path) -> bool:
    """Whether somebody has built a kernel there, perhaps not one for us."""
    return (folder / IMAGE).is_file() and (folder / RELEASE).is_file()


def find(folder: Path) -> BuiltTree:
    """The tree of a folder (of make's O=, or of the source), once it is a kernel that our machines boot; UsageError
    with all that is missing and what to do about it.
    """
    source = folder / "source" if (folder / "source").is_symlink() else folder
    lost = [mark for mark in MARKS if not (source / mark).exists()]
    if lost:
        hint = "a folder in which `make` has built Linux, or the one of its O="
        what = "does not exist" if not folder.exists() else "is no kernel tree"
        raise UsageError(
            f"{folder} {what}", [f"it has no {', '.join(lost)}"] if folder.exists() else [], hint
        )
    _check_config(folder)
    _check_built(folder)
    return BuiltTree(source.resolve(), folder, (folder / RELEASE).read_text().strip())


@dataclass(frozen=True)
class BuiltTree:
    """A tree that is whole: its source, where it was built (mostly the same), the kernel's release."""

    source: Path
    built: Path
    release: str

    @property
    def modules(self) -> list[str]:
        """Its modules, by their places."""
        return list(_modules(self.built))

    @property
    def version(self) -> str:
        """Which build it is: the folder, and the kernel's own words (uname -v)."""
        for name in ("utsversion.h", "compile.h"):
            file = self.built / "include/generated" / name
            found = _BUILT_WHEN.search(file.read_text()) if file.is_file() else None
            if found:
                return f"{self.built} {found[1]}"
        return str(self.built)

    @property
    def key(self) -> str:
        """Another one after each build that made something anew."""
        image = hashlib.sha256((self.built / IMAGE).read_bytes()).hexdigest()
        files = ((self.built / name).stat() for name in (*self.modules, "Module.symvers"))
        sizes = [[file.st_size, file.st_mtime_ns] for file in files]
        parts = (
            RECIPE,
            str(self.built),
            image,
            self.modules,
            sizes,
            (self.built / BUILT_CONFIG).read_bytes(),
        )
        return f"{self.release}-{digest(*parts)}"

    def copy(self, into: Path, host: LocalHost) -> None:
        """Image, modules (without debug information, indexed) and what modules are built with, into an entry."""
        modules = into / "root/usr/lib/modules" / self.release
        headers = into / f"root/usr/src/linux-headers-{self.release}"
        for folder in (modules, headers):
            folder.mkdir(parents=True)
        try:
            shutil.copyfile(self.built / IMAGE, into / "vmlinuz")
            self._copy_headers(headers)
            self._copy_modules(modules, host)
        except (shutil.Error, FileNotFoundError) as error:
            raise SetupError(
                f"{self.built} cannot be copied", str(error).splitlines()[-3:], MOVING
            ) from error
        (modules / "build").symlink_to(f"/usr/src/{headers.name}")
        if (self.built / "vmlinux").is_file():
            # The types of the kernel, on which those of a module are based, are all that is asked of it.
            types = ["--only-section=.BTF", str(self.built / "vmlinux"), str(headers / "vmlinux")]
            host.run([require("objcopy"), *types])
        host.run([require("depmod"), "-b", str(into / "root/usr"), self.release])

    def _copy_modules(self, into: Path, host: LocalHost) -> None:
        for folder in {(into / "kernel" / name).parent for name in self.modules}:
            folder.mkdir(parents=True, exist_ok=True)
        for name in LISTS:
            if (self.built / name).is_file():
                shutil.copyfile(self.built / name, into / name)
        (into / "modules.order").write_text("".join(f"kernel/{name}\n" for name in self.modules))
        with host.ledger.scratch_file("modules") as listed:
            listed.write_text(
                "".join(f"{into}/kernel/{name}\n{self.built}/{name}\n" for name in self.modules)
            )
            each = [
                "-d",
                "\n",
                "-n",
                "2",
                "-P",
                str(os.cpu_count() or 1),
                require("strip"),
                "--strip-debug",
                "-o",
            ]
            host.run(["xargs", "-a", str(listed), *each])

    def _copy_headers(self, into: Path) -> None:
        # Built where its source is, a folder is of both; a link cannot be copied twice.
        wanted = dict.fromkeys(
            [*((self.source, name) for name in HEADERS), *((self.built, name) for name in MADE)]
        )
        for root, name in wanted:
            if (root / name).is_dir():
                shutil.copytree(root / name, into / name, symlinks=True, ignore=_needless, dirs_exist_ok=True)
            else:
                shutil.copy2(root / name, into / name)
        for name in filter(lambda name: (self.built / name).is_file(), TOOLS):
            (into / name).parent.mkdir(parents=True)
            shutil.copy2(self.built / name, into / name)


def _needless(folder: str, names: list[str]) -> set[str]:
    only = next((only for place, only in ONLY.items() if folder.endswith(f"/{place}")), ("",))
    return {
        name
        for name in names
        if not name.startswith(only) or name in _NOT_THESE or name.endswith((".o", ".a", ".cmd"))
    }


def _modules(built: Path) -> Iterator[str]:
    """Places of the modules that modules.order names. It says .o since 6.3, and kernel/ before 5.3."""
    for line in (built / "modules.order").read_text().splitlines():
        yield str(Path(line.removeprefix("kernel/")).with_suffix(".ko"))


def _check_config(folder: Path) -> None:
    file = folder / ".config"
    if not file.is_file():
        steps = "make defconfig && odp-harness kernel config >>.config && make olddefconfig"
        raise UsageError(f"{folder} has no .config", (), f"cd {folder} && {steps} && {MAKE}")
    text = file.read_text()
    options = config.read(text)
    if options.get("X86_64") != "y":
        stated = _ARCHITECTURE.search(text)
        what = "32 bits" if options.get("X86") == "y" else stated[1] if stated else "another machine"
        raise UsageError(
            f"{folder} is configured for {what}, our machines are x86_64", (), "make x86_64_defconfig"
        )
    _check_options(folder, options)


def _check_options(folder: Path, options: dict[str, str]) -> None:
    lacks = config.lacking(options)
    if lacks:
        hint = f"cd {folder} && {config.commands(lacks)} && make olddefconfig && {MAKE}"
        if any(lack.name == "DEBUG_INFO_BTF" for lack in lacks):
            hint += "; with pahole (of the package dwarves), without which BTF is no option"
        raise UsageError(f"the kernel of {folder} lacks what our machines need", list(map(str, lacks)), hint)


def _check_built(folder: Path) -> None:
    hint = f"make -C {folder} -j$(nproc)"
    needed = (IMAGE, RELEASE, BUILT_CONFIG, "Module.symvers", "modules.order")
    lost = [name for name in needed if not (folder / name).is_file()]
    if lost:
        elsewhere = "if it was built with O=, name that folder"
        raise UsageError(f"{folder} is not built", [f"it has no {', '.join(lost)}", elsewhere], hint)
    missing = [name for name in _modules(folder) if not (folder / name).is_file()]
    if missing:
        raise UsageError(f"{folder} is not built to its end", [f"it has no {', '.join(missing[:5])}"], hint)
    if config.lacking(config.read((folder / BUILT_CONFIG).read_text())):
        raise UsageError(f"{folder} was configured anew since it was built", (), hint)
