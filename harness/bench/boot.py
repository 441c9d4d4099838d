"""Measure the time until a guest has run `uname`: cold boot, restored snapshots, and virtme-ng, side by side."""

from __future__ import annotations

import os
import shutil
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from harness.agent import checked
from harness.bench.measurement import Measurement
from harness.device.soft_roce import SoftRoce
from harness.errors import SetupError
from harness.kernel.packages import Kernel
from harness.machine.qemu import MachineConfig, Shape
from harness.machine.vm import Machine
from harness.plan.session import PREPARE, Session
from harness.values.case import Request

UNAME = ("uname", "-r")
VNG = "virtme-ng==1.42"
TIMEOUT_S = 240.0
UDEV = ("/usr/lib/systemd/systemd-udevd", "/lib/systemd/systemd-udevd")
"""Paths of udev, which virtme-ng's guest runs from the host's root. Ref: virtme-ng 1.42 virtme/guest/virtme-init"""


@dataclass(frozen=True)
class BootTimes(Measurement):
    """Medians over `rounds` rounds, in wall seconds from starting the process to the finished command.

    `ratio_prepared_to_vng` is how many prepared machines reply while virtme-ng replies once. Both are None where
    virtme-ng does not run, and `vng_error` has the reason and a hint; else that is empty.
    """

    kernel: str
    rounds: int
    cold_s: float
    booted_s: float
    prepared_s: float
    vng_s: float | None
    vng_error: str = ""

    def plain(self) -> dict[str, object]:
        """Return JSON values for --json."""
        ratio = None if self.vng_s is None else round(self.vng_s / self.prepared_s, 1)
        return {**super().plain(), "ratio_prepared_to_vng": ratio}


def measure(session: Session, series: str = "newest", rounds: int = 7) -> BootTimes:
    """Measure all four in each round, in real time under TCG (virtme-ng too), on the same kernel and QEMU."""
    kernel = session.kernel(series)
    machines = session.machines
    shape = Shape(machines.spec.memory_mib, "real", "tcg")
    booted = machines.booted(kernel, shape)
    prepared = machines.prepared(kernel, shape, SoftRoce().prepare(PREPARE))
    disks, _ = machines.disks(kernel)

    def cold() -> None:
        with session.ledger.scratch_folder("cold") as folder:
            request = Request(1, "exec", argv=UNAME)
            config = MachineConfig(shape, disks, request, folder / "ram")
            with Machine(session.host, machines.qemu, folder, config) as machine:
                checked(machine.wait(TIMEOUT_S))

    methods: dict[str, Callable[[], object]] = {
        "cold": cold,
        "booted": lambda: machines.run(booted, Request(9, "exec", argv=UNAME), TIMEOUT_S),
        "prepared": lambda: machines.run(prepared, Request(9, "exec", argv=UNAME), TIMEOUT_S),
    }
    vng_error = ""
    try:
        methods["vng"] = _virtme(session, kernel)
    except SetupError as error:
        vng_error = error.render()
    times: dict[str, list[float]] = {name: [] for name in methods}
    for number in range(rounds):
        for name in tuple(methods):
            session.say(f"round {number + 1} of {rounds}: {name}")
            began = time.monotonic()
            try:
                methods[name]()
            except SetupError as error:
                if name != "vng":
                    raise
                vng_error = error.render()
                del methods[name], times[name]
            else:
                times[name].append(time.monotonic() - began)
    if vng_error:
        session.say(vng_error)
    medians = {f"{name}_s": round(statistics.median(values), 3) for name, values in times.items()}
    vng_s = medians.pop("vng_s", None)
    return BootTimes(kernel.release, rounds, **medians, vng_s=vng_s, vng_error=vng_error)


def need_udev() -> None:
    """Raise SetupError where virtme-ng's guest has no udev.

    The guest finds the ports for a command's output and exit status by the names that udev gives them
    (/dev/virtio-ports/virtme.stdout). Without them vng exits with status 255 and prints nothing.
    Ref: virtme-ng 1.42 virtme/guest/virtme-init, run_user_script; virtme/commands/run.py
    """
    if not any(os.access(path, os.X_OK) for path in UDEV) and not shutil.which("udevd"):
        evidence = [f"not there: {path}" for path in UDEV]
        headline = "virtme-ng needs udev on this machine, whose root its guest uses"
        raise SetupError(headline, evidence, "apt-get install udev")


def _virtme(session: Session, kernel: Kernel) -> Callable[[], object]:
    """Install virtme-ng in a virtual environment; return a run with the same kernel, the same QEMU and no KVM."""
    need_udev()

    def install(into: Path) -> None:
        session.host.run(["python3", "-m", "venv", str(into)])
        session.host.run([f"{into}/bin/python", "-m", "pip", "install", "-q", VNG])
        # It makes an initial RAM disk, which needs a static busybox.
        session.archive.unpack(["busybox-static"], into)

    venv = session.store.built("venv", f"{VNG.replace('==', '-')}-busybox", install)
    # It finds a kernel's modules by the path of its image.
    modules = venv / kernel.folder.name / "lib/modules" / kernel.release
    modules.mkdir(parents=True, exist_ok=True)
    for entry in (*kernel.modules.iterdir(), kernel.vmlinuz):
        if not (modules / entry.name).is_symlink():
            (modules / entry.name).symlink_to(entry)
    # It starts programs from the search path: ours under QEMU's name, and its own with the interpreter of the
    # virtual environment, whose path has changed since it was made.
    shims = {"qemu-system-x86_64": " ".join(f"'{word}'" for word in session.qemu.command)}
    for script in (venv / "bin").glob("v*"):
        shims[script.name] = f"'{venv}/bin/python' '{script}'"
    folder = venv / "shims"
    folder.mkdir(exist_ok=True)
    for name, command in shims.items():
        (folder / name).write_text(f'#!/bin/sh\nexec {command} "$@"\n')
        (folder / name).chmod(0o755)
    (folder / "busybox").unlink(missing_ok=True)
    (folder / "busybox").symlink_to(venv / "usr/bin/busybox")
    argv = [str(folder / "vng"), "-r", str(modules / "vmlinuz"), "--disable-kvm", "--exec", "uname -r"]
    path = f"{folder}:/usr/sbin:/usr/bin:/sbin:/bin"

    def run() -> None:
        done = session.host.run(argv, env={"PATH": path}, timeout_s=TIMEOUT_S)
        if kernel.release not in done.output:
            raise SetupError("virtme-ng did not run uname", done.output.splitlines()[-10:])

    return run
