"""Build the disks of a guest: userland and kernel files as compressed images, and the initial RAM disk."""

from __future__ import annotations

import contextlib
import fcntl
import json
import lzma
import os
import shutil
import tempfile
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from harness import agent
from harness.debian import Archive
from harness.errors import SetupError, UsageError
from harness.host import CommandError, LocalHost, require
from harness.kernel.packages import Kernel
from harness.machine import erofs
from harness.machine.cpio import archive
from harness.store import digest

RECIPE = 3
HERE = Path(__file__).parent

# Modules that the first process needs, and crypto that older file systems look up by name.
BOOT_MODULES = (
    "crc32c_generic",
    "crc32c_intel",
    "libcrc32c",
    "virtio_pci",
    "virtio_blk",
    "virtio_console",
    "erofs",
    "overlay",
)


@dataclass(frozen=True)
class ImageSpec:
    """A file of vm-images/: suite, packages, excluded paths, memory of the guest in MiB."""

    name: str
    suite: str
    packages: tuple[str, ...]
    exclude: tuple[str, ...]
    memory_mib: int

    @classmethod
    def load(cls, path: Path) -> ImageSpec:
        """Read a file; UsageError names what is wrong with it."""
        try:
            table = tomllib.loads(path.read_text(encoding="utf-8"))
        except (OSError, tomllib.TOMLDecodeError) as error:
            raise UsageError(f"{path}: {error}") from error
        unknown = set(table) - {"suite", "packages", "exclude", "memory_mib"}
        if unknown or "suite" not in table or "packages" not in table:
            wrong = f"unknown key {sorted(unknown)[0]!r}" if unknown else "needs `suite` and `packages`"
            raise UsageError(f"{path}: {wrong}")
        return cls(
            path.stem,
            table["suite"],
            tuple(table["packages"]),
            tuple(table.get("exclude", ())),
            int(table.get("memory_mib", 1024)),
        )


@dataclass(frozen=True)
class Image:
    """A built userland: its disk, and the digest of its exact package versions."""

    disk: Path
    digest: str
    key: str


def build_image(spec: ImageSpec, store_archive: Archive) -> Image:
    """Return the userland of a spec, built unless it is cached. Works as root and as an ordinary user."""
    store = store_archive.store
    key = f"{spec.name}-{digest(RECIPE, spec.suite, spec.packages, spec.exclude)}"
    folder = store.built("image", key, lambda into: _make_userland(spec, store_archive, into))
    manifest = (folder / "packages.json").read_text()
    return Image(folder / "root.erofs", digest(manifest), key)


def _make_userland(spec: ImageSpec, store_archive: Archive, into: Path) -> None:
    host = store_archive.host
    require("mkfs.erofs")
    # The private apt root has the host's proxies and certificates; mmdebstrap gets the same sources.
    sources = store_archive.sources([spec.suite, f"{spec.suite}-security"])
    tar = into / "root.tar"
    excludes = [f"--dpkgopt=path-exclude={pattern}" for pattern in spec.exclude]
    command = [
        *_namespaces(host),
        require("mmdebstrap"),
        "--quiet",
        "--variant=minbase",
        '--aptopt=Apt::Install-Recommends "false"',
        *excludes,
        f"--include={','.join(spec.packages)}",
        spec.suite,
        str(tar),
        *sources,
    ]
    try:
        with _work_folder(host, into) as folder:
            host.run(command, timeout_s=1800, env={"TMPDIR": str(folder)})
    except CommandError as error:
        raise SetupError(
            f"the image {spec.name} could not be built",
            error.evidence,
            "as an ordinary user mmdebstrap needs the package uidmap and a line for you in /etc/subuid; "
            "odp-harness doctor checks it",
        ) from error
    root = into / "root"
    root.mkdir()
    # In the image everything belongs to root; any user may unpack it here.
    host.run(["tar", "-x", "--no-same-owner", "--exclude=./dev/*", "-f", str(tar), "-C", str(root)])
    # An ordinary user must be able to read files that only root may read in the image.
    host.run(["chmod", "-R", "u+rX", str(root)])
    tar.unlink()
    _write_manifest(root, into / "packages.json")
    erofs.pack(host, root, into / "root.erofs")
    shutil.rmtree(root)


def _namespaces(host: LocalHost) -> list[str]:
    """Return a prefix that makes root's mmdebstrap take its mounts and processes along when it is killed.

    It needs namespaces of its own, if the host allows them. An ordinary user's mmdebstrap makes them itself.
    """
    if os.geteuid() != 0:
        return []
    prefix = [require("unshare"), "--mount", "--pid", "--fork", "--kill-child", "--mount-proc"]
    return [] if host.run([*prefix, "true"], check=False).status else prefix


@contextlib.contextmanager
def _work_folder(host: LocalHost, into: Path) -> Iterator[Path]:
    """Make the folder where mmdebstrap unpacks.

    Root's is inside the entry and is removed with it. An ordinary user's is owned by subordinate ids, which cannot
    enter a private folder, so it is a public temporary one; the next build removes what a killed one left there.
    """
    if os.geteuid() == 0:
        yield into
        return
    folder = Path(tempfile.gettempdir()) / f"odp-harness-image-{os.geteuid()}"
    folder.mkdir(exist_ok=True)
    if folder.stat().st_uid != os.geteuid() or folder.is_symlink():
        raise SetupError(f"{folder} is not yours", hint="set TMPDIR to another folder")
    folder.chmod(0o1777)
    lock = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        with contextlib.suppress(BlockingIOError):
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            for stale in folder.glob("mmdebstrap.*"):
                host.run(["mmdebstrap", "--unshare-helper", "rm", "-rf", str(stale)], check=False)
                # In that namespace files of the user, as the keyring's folder, belong to the id nobody.
                shutil.rmtree(stale, ignore_errors=True)
        fcntl.flock(lock, fcntl.LOCK_SH)
        yield folder
    finally:
        os.close(lock)
        with contextlib.suppress(OSError):
            folder.rmdir()


def _write_manifest(root: Path, path: Path) -> None:
    """Write the exact package versions of the image, from its own dpkg status."""
    packages: dict[str, str] = {}
    name = ""
    for line in (root / "var/lib/dpkg/status").read_text(encoding="utf-8").splitlines():
        if line.startswith("Package: "):
            name = line.removeprefix("Package: ")
        elif line.startswith("Version: "):
            packages[name] = line.removeprefix("Version: ")
    path.write_text(json.dumps(packages, indent=1, sort_keys=True))


def kernel_disk(kernel: Kernel, store_archive: Archive) -> Path:
    """Pack modules and headers of a kernel; all headers, since bcc opens some 140 of them."""

    def make(into: Path) -> None:
        erofs.pack(store_archive.host, kernel.root, into / "kernel.erofs")

    key = digest(RECIPE, kernel.folder.name)
    return store_archive.store.built("kernel-disk", key, make) / "kernel.erofs"


def initrd(kernel: Kernel, store_archive: Archive) -> tuple[Path, str]:
    """Build the initial RAM disk of a kernel with the current agent; return it and its key."""
    files = {f"opt/odp/{path}": content for path, content in agent.bundle().items()}
    files["init"] = (HERE / "init.sh").read_bytes()
    files["opt/odp/start.sh"] = (HERE / "start.sh").read_bytes()
    key = digest(RECIPE, kernel.folder.name, *(part for f in files.items() for part in (f[0], f[1])))

    def make(into: Path) -> None:
        busybox = into / "busybox"
        busybox.mkdir()
        store_archive.unpack(["busybox-static"], busybox)
        files["bin/busybox"] = (busybox / "usr/bin/busybox").read_bytes()
        shutil.rmtree(busybox)
        files.update(_boot_modules(kernel))
        (into / "initrd").write_bytes(archive(files, {"init", "bin/busybox"}))

    return store_archive.store.built("initrd", key, make) / "initrd", key


def _boot_modules(kernel: Kernel) -> dict[str, bytes]:
    """Read BOOT_MODULES of this kernel with their dependencies, uncompressed, and the order to load them in."""
    needs: dict[str, list[str]] = {}
    for line in (kernel.modules / "modules.dep").read_text().splitlines():
        path, _, rest = line.partition(":")
        needs[path] = rest.split()
    by_name = {_module_name(path): path for path in needs}
    order: list[str] = []

    def add(path: str) -> None:
        for need in reversed(needs[path]):
            add(need)
        if path not in order:
            order.append(path)

    for name in BOOT_MODULES:
        if name in by_name:
            add(by_name[name])
    files = {f"modules/{_module_name(path)}.ko": _module_bytes(kernel.modules / path) for path in order}
    files["modules/order"] = "".join(f"{_module_name(path)}.ko\n" for path in order).encode()
    return files


def _module_name(path: str) -> str:
    return Path(path).name.split(".ko")[0].replace("-", "_")


def _module_bytes(path: Path) -> bytes:
    data = path.read_bytes()
    return lzma.decompress(data) if path.suffix == ".xz" else data
