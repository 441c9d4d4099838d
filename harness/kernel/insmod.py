"""Build, load and unload a module for the host's own kernel."""

from __future__ import annotations

import os
import platform
import shutil
from pathlib import Path

from harness.errors import SetupError, Unsupported
from harness.host import CommandError, LocalHost, require
from harness.kernel.build import messages_of, sources_of

MODULES = Path("/lib/modules")
LOADED = Path("/sys/module")


def build_here(folder: Path, into: Path, host: LocalHost) -> Path:
    """Build the modules of a folder for the running kernel, by make and its headers; the .ko in the folder `into`.

    Unsupported without headers; SetupError with the compiler's messages.
    """
    release = platform.release()
    headers = MODULES / release / "build"
    if not headers.is_dir():
        raise Unsupported(f"no headers of the running kernel {release}", [str(headers)], "--file MODULE.ko")
    for name, content in sources_of(folder).items():
        (into / name).parent.mkdir(parents=True, exist_ok=True)
        (into / name).write_bytes(content)
    try:
        host.run([require("make"), "-C", str(headers), f"M={into}", "modules"], timeout_s=600)
    except CommandError as error:
        output = error.finished.output
        messages = messages_of(output, folder) or output.splitlines()[-20:]
        raise SetupError(f"{folder.name} does not build for {release}", messages) from error
    return next(into.glob("*.ko"))


def load(file: Path, host: LocalHost) -> None:
    """Load a module; SetupError if it is loaded already, without root, or if the kernel refuses it."""
    name = file.stem
    if (LOADED / name).exists():
        raise SetupError(f"{name} is already loaded", hint="odp-harness kmod unload")
    _as_root("loading")
    try:
        host.run([require("insmod"), str(file)])
    except CommandError as error:
        raise SetupError(
            f"{name} does not load into {platform.release()}", error.evidence[1:], "dmesg has the reason"
        ) from error


def unload(name: str, host: LocalHost) -> None:
    """Unload a module; SetupError if it is not loaded, without root, or while it is in use."""
    if not (LOADED / name).exists():
        raise SetupError(f"{name} is not loaded", hint="odp-harness kmod load")
    _as_root("unloading")
    host.run([require("rmmod"), name])


def _as_root(what: str) -> None:
    if os.geteuid() != 0:
        means = "sudo" if shutil.which("sudo") else "root"
        raise SetupError(f"{what} a kernel module needs root", hint=f"the same with {means}")
