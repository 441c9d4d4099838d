"""Check the host item by item, with a hint for each that does not work."""

from __future__ import annotations

import getpass
import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from harness.debian import KEYRING, Archive
from harness.errors import HarnessError
from harness.host import PACKAGES, require
from harness.kernel.packages import Kernels
from harness.machine.qemu import find_qemu, probe_accelerator

TOOLS = ("apt-get", "dpkg-deb", "mmdebstrap", "mkfs.erofs", "depmod", "setpriv", "fallocate", "tar", "cp")
NEEDED_BYTES = 6 << 30


@dataclass(frozen=True)
class Finding:
    """One item: `ok`, or what is wrong and what to try. The check as a whole ignores `optional` items."""

    item: str
    ok: bool
    text: str
    hint: str = ""
    optional: bool = False


def examine(archive: Archive) -> Iterator[Finding]:
    """Check everything, yielding each item as it is known; the last one boots a guest."""
    for tool in TOOLS:
        yield _try(f"program {tool}", lambda tool=tool: require(tool))  # type: ignore[misc]
    yield _keyring()
    yield _disk(archive)
    yield _user_namespaces()
    yield _try("archive", lambda: f"{archive.mirrors().main} ({len(Kernels(archive).releases())} kernels)")
    qemu = _try("QEMU", lambda: "{0.version} ({0.origin})".format(find_qemu(archive)))
    yield qemu
    if qemu.ok:
        yield _accelerator(archive)


def _try(item: str, look: Callable[[], str]) -> Finding:
    try:
        return Finding(item, True, look())
    except HarnessError as error:
        return Finding(item, False, error.headline, error.hint)


def _keyring() -> Finding:
    if KEYRING.is_file():
        return Finding("archive keys", True, str(KEYRING))
    return Finding("archive keys", False, f"{KEYRING} is missing", "apt-get install debian-archive-keyring")


def _disk(archive: Archive) -> Finding:
    free = shutil.disk_usage(archive.store.root).free
    text = f"{archive.store.root}: {free >> 30} GiB free"
    return Finding("cache", free > NEEDED_BYTES, text, "--cache on a disk with 6 GiB free")


def _user_namespaces() -> Finding:
    """Check that an ordinary user can build images, in a user namespace. Ref: mmdebstrap(1), mode unshare."""
    item = "building images"
    if os.geteuid() == 0:
        return Finding(item, True, "as root")
    user = getpass.getuser()
    missing = [tool for tool in ("newuidmap", "newgidmap") if not shutil.which(tool)]
    if missing:
        return Finding(
            item, False, f"{missing[0]} is not installed", f"apt-get install {PACKAGES.get('newuidmap')}"
        )
    lines = Path("/etc/subuid").read_text().splitlines() if Path("/etc/subuid").is_file() else []
    if not any(line.startswith((f"{user}:", f"{os.getuid()}:")) for line in lines):
        return Finding(
            item, False, f"/etc/subuid has no line for {user}", f"usermod --add-subuids 100000-165535 {user}"
        )
    return Finding(item, True, f"in a user namespace as {user}")


def _accelerator(archive: Archive) -> Finding:
    try:
        kernel = Kernels(archive).get("newest")
        name, why = probe_accelerator(find_qemu(archive), kernel.vmlinuz, archive.host, archive.store)
    except HarnessError as error:
        return Finding("accelerator", False, error.headline, error.hint)
    note = (
        ""
        if name == "kvm"
        else "nothing to do: TCG is the reference speed here, exact time uses it everywhere"
    )
    return Finding("accelerator", True, f"{name}: {why}", note, optional=True)
