"""Check a built kernel tree of the user and copy it into a cache entry like that of a Debian kernel.

The entry has all that modules are built with (what `make bindeb-pkg` would put into a package of headers), so the
tree may change later. Ref: Linux 7.3 scripts/package/install-extmod-build
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
UNFINISHED = "wait for `make` to finish there"
# What every kernel tree has, and few other folders.
MARKS = ("Makefile", "Kbuild", "drivers/infiniband/core")
# What modules are built with: of the source, and of the build.
HEADERS = ("Makefile", f"arch/{ARCHITECTURE}", "include", "scripts")
MADE = (".config", "Module.symvers", f"arch/{ARCHITECTURE}/include/generated", "include", "scripts")
TOOLS = ("tools/objtool/objtool", "tools/bpf/resolve_btfids/resolve_btfids")
LISTS = ("modules.order", "modules.builtin", "modules.builtin.modinfo")
# Copy only names of these folders that begin so; never those of _IGNORED.
ONLY = {
    f"arch/{ARCHITECTURE}": ("include", "Makefile", "Kbuild"),
    "include/config": ("auto.conf", "kernel.release"),
}
_IGNORED = ("kconfig", "dtc", "package", "dt-bindings")
_ARCHITECTURE = re.compile(r"^# Linux/(\S+) \S+ Kernel Configuration", re.M)
_OTHERS = re.compile(r"newest$|all$|\d+\.\d+")
_BUILT_WHEN = re.compile(r'#define UTS_VERSION "([^"]*)"')


def named(name: str) -> Path | None:
    """Return the folder if the name is a tree's: a path, or a folder not called like a series or a release."""
    path = Path(name).expanduser()
    if os.sep in name or (path.is_dir() and not _OTHERS.match(name)):
        return path.resolve()
    return None


@functools.cache
def called(name: str) -> str:
    """Return the name of a kernel in case names: the release of a tree, else the name as given."""
    folder = named(name)
    return name if folder is None else find(folder).release


def distinct(names: Sequence[str]) -> tuple[str, ...]:
    """Drop duplicates, trees by their full path; UsageError if cases on two kernels would have the same names."""
    spelled = tuple(dict.fromkeys(str(named(name) or name) for name in names))
    by_call: dict[str, str] = {}
    for name in spelled:
        other = by_call.setdefault(called(name), name)
        if other != name:
            hint = "one after the other, then odp-harness compare; or CONFIG_LOCALVERSION"
            raise UsageError(f"{other} and {name} are both called {called(name)}", (), hint)
    return spelled


def is_built(folder: Path) -> bool:
    """Return whether a kernel was built there, perhaps not for our guests."""
    return (folder / IMAGE).is_file() and (folder / RELEASE).is_file()


def find(folder: Path) -> BuiltTree:
    """Find the tree of a folder (the source, or make's O=) whose kernel our guests can boot.

    UsageError with all that is missing and what to do about it.
    """
    source = folder / "source" if (folder / "source").is_symlink() else folder
    missing = [mark for mark in MARKS if not (source / mark).exists()]
    if missing:
        hint = "a folder in which `make` has built Linux, or the one of its O="
        what = "does not exist" if not folder.exists() else "is no kernel tree"
        raise UsageError(
            f"{folder} {what}", [f"it has no {', '.join(missing)}"] if folder.exists() else [], hint
        )
    _check_config(folder)
    _check_built(folder)
    return BuiltTree(source.resolve(), folder, (folder / RELEASE).read_text().strip())


@dataclass(frozen=True)
class BuiltTree:
    """A complete tree: its source, the folder it was built in (mostly the same), the kernel's release."""

    source: Path
    built: Path
    release: str

    @property
    def modules(self) -> list[str]:
        """Paths of the modules in the tree."""
        return list(_modules(self.built))

    @property
    def version(self) -> str:
        """Identify the build: the folder, and the kernel's `uname -v`."""
        for name in ("utsversion.h", "compile.h"):
            file = self.built / "include/generated" / name
            match = _BUILT_WHEN.search(file.read_text()) if file.is_file() else None
            if match:
                return f"{self.built} {match[1]}"
        return str(self.built)

    @property
    def key(self) -> str:
        """Cache key: changes with each build that changed the image, a module or the configuration."""
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
        """Copy image, modules (stripped, depmod'ed) and what modules are built with into an entry."""
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
                f"{self.built} cannot be copied", str(error).splitlines()[-3:], UNFINISHED
            ) from error
        (modules / "build").symlink_to(f"/usr/src/{headers.name}")
        if (self.built / "vmlinux").is_file():
            # Only BTF is needed: a module's is based on the kernel's.
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
        # Source and build may be one folder, and a link cannot be copied twice.
        names = dict.fromkeys(
            [*((self.source, name) for name in HEADERS), *((self.built, name) for name in MADE)]
        )
        for root, name in names:
            if (root / name).is_dir():
                shutil.copytree(root / name, into / name, symlinks=True, ignore=_ignored, dirs_exist_ok=True)
            else:
                shutil.copy2(root / name, into / name)
        for name in filter(lambda name: (self.built / name).is_file(), TOOLS):
            (into / name).parent.mkdir(parents=True)
            shutil.copy2(self.built / name, into / name)


def _ignored(folder: str, names: list[str]) -> set[str]:
    only = next((only for place, only in ONLY.items() if folder.endswith(f"/{place}")), ("",))
    return {
        name
        for name in names
        if not name.startswith(only) or name in _IGNORED or name.endswith((".o", ".a", ".cmd"))
    }


def _modules(built: Path) -> Iterator[str]:
    """Yield the paths that modules.order names. It names .o files since 6.3, and kernel/ before 5.3."""
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
            f"{folder} is configured for {what}, our guests are x86_64", (), "make x86_64_defconfig"
        )
    _check_options(folder, options)


def _check_options(folder: Path, options: dict[str, str]) -> None:
    missing = config.lacking(options)
    if missing:
        hint = f"cd {folder} && {config.commands(missing)} && make olddefconfig && {MAKE}"
        if any(option.name == "DEBUG_INFO_BTF" for option in missing):
            hint += "; BTF needs pahole (of the package dwarves)"
        raise UsageError(f"the kernel of {folder} lacks what our guests need", list(map(str, missing)), hint)


def _check_built(folder: Path) -> None:
    hint = f"make -C {folder} -j$(nproc)"
    needed = (IMAGE, RELEASE, BUILT_CONFIG, "Module.symvers", "modules.order")
    missing = [name for name in needed if not (folder / name).is_file()]
    if missing:
        elsewhere = "if it was built with O=, name that folder"
        raise UsageError(f"{folder} is not built", [f"it has no {', '.join(missing)}", elsewhere], hint)
    missing = [name for name in _modules(folder) if not (folder / name).is_file()]
    if missing:
        raise UsageError(f"{folder} is not completely built", [f"it has no {', '.join(missing[:5])}"], hint)
    if config.lacking(config.read((folder / BUILT_CONFIG).read_text())):
        raise UsageError(f"the configuration of {folder} changed since it was built", (), hint)
