"""Measure the time until a guest has run `uname`: cold boot, restored snapshots, and virtme-ng, side by side."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from harness.bench.measurement import Measurement
from harness.device.soft_roce import SoftRoce
from harness.errors import SetupError
from harness.kernel.packages import Kernel
from harness.machine.qemu import Shape
from harness.machine.vm import Machine
from harness.plan.session import PREPARE, Session
from harness.values.case import Request

UNAME = ("uname", "-r")
VNG = "virtme-ng==1.42"
TIMEOUT_S = 240.0


@dataclass(frozen=True)
class BootTimes(Measurement):
    """Medians over `rounds` rounds, in wall seconds from starting the process to the finished command.

    `ratio_prepared_to_vng` is how many prepared machines reply while virtme-ng replies once.
    """

    kernel: str
    rounds: int
    cold_s: float
    booted_s: float
    prepared_s: float
    vng_s: float

    def plain(self) -> dict[str, object]:
        """Return JSON values for --json."""
        return {**super().plain(), "ratio_prepared_to_vng": round(self.vng_s / self.prepared_s, 1)}


def measure(session: Session, series: str = "newest", rounds: int = 7) -> BootTimes:
    """Measure all four in each round, in real time under TCG (virtme-ng too), on the same kernel and QEMU."""
    kernel = session.kernel(series)
    studio = session.studio
    shape = Shape(studio.spec.memory_mib, "real", "tcg")
    booted = studio.booted(kernel, shape)
    prepared = studio.prepared(kernel, shape, SoftRoce().prepare(PREPARE))
    disks, _ = studio.disks(kernel)

    def cold() -> None:
        with session.ledger.scratch_folder("cold") as folder:
            request = Request(1, "exec", argv=UNAME)
            with Machine(
                session.host, studio.qemu, shape, disks, folder, request=request, ram=folder / "ram"
            ) as machine:
                machine.wait(TIMEOUT_S)

    methods: dict[str, Callable[[], object]] = {
        "cold": cold,
        "booted": lambda: studio.run(booted, Request(9, "exec", argv=UNAME), TIMEOUT_S),
        "prepared": lambda: studio.run(prepared, Request(9, "exec", argv=UNAME), TIMEOUT_S),
        "vng": _virtme(session, kernel),
    }
    times: dict[str, list[float]] = {name: [] for name in methods}
    for number in range(rounds):
        for name, boot in methods.items():
            session.say(f"round {number + 1} of {rounds}: {name}")
            began = time.monotonic()
            boot()
            times[name].append(time.monotonic() - began)
    medians = {f"{name}_s": round(statistics.median(values), 3) for name, values in times.items()}
    return BootTimes(kernel.release, rounds, **medians)


def _virtme(session: Session, kernel: Kernel) -> Callable[[], object]:
    """Install virtme-ng in a virtual environment; return a run with the same kernel, the same QEMU and no KVM."""

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
