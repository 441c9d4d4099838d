"""QEMU: which one, which accelerator, and the command line of a machine."""

from __future__ import annotations

import os
import re
import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from harness.debian import Archive
from harness.errors import SetupError
from harness.host import CommandError, LocalHost
from harness.store import Store

# vfio-user-pci, which the emulated ConnectX needs, came with 10.1.
MINIMUM = (10, 1)
PROBE_DEADLINE_S = 15.0

CLOCKS = ("exact", "real")

# With an eventfd QEMU looks at each virtqueue once more after a restore, from another thread: the virtio-serial
# device then interrupts the guest at an instant that is the host's to choose. Ref: QEMU 11.1
# hw/virtio/virtio.c (virtio_device_start_ioeventfd_impl), hw/char/virtio-serial-bus.c (do_flush_queued_data)
AT_ONCE = "ioeventfd=off"

# A machine that records holds its main loop while the guest runs. Otherwise, when the guest halts, that loop may jump
# over the idle time before the last instructions are counted: 3 to 16 ns too far, now and then.
# Ref: QEMU 11.1 accel/tcg/icount-common.c, icount_start_warp_timer; tcg-accel-ops-icount.c, icount_process_data
ALONE = ",rr=record,rrfile=/dev/null"

# QEMU's TLB grows and shrinks by the host's wall clock, and a guest may see what is in it: between the change of a page
# table and its flush another thread finds the old entry or the new. So for a machine in exact time that clock stands
# still. libfaketime does that; its shared memory would stay behind a QEMU that is killed, and its mending of waits by
# the monotonic clock ends them at once: vfio-user waits so for a card's replies.
# Ref: QEMU 11.1 accel/tcg/cputlb.c, tlb_mmu_resize_locked, get_clock_realtime; hw/vfio-user/proxy.c,
# vfio_user_send_wait; libfaketime 0.9.10 README, FAKETIME_FORCE_MONOTONIC_FIX
STILL = {
    "FAKETIME": "2026-01-01 00:00:00",
    "FAKETIME_DONT_FAKE_MONOTONIC": "1",
    "FAKETIME_DISABLE_SHM": "1",
    "FAKETIME_FORCE_MONOTONIC_FIX": "0",
    "NO_FAKE_STAT": "1",
    "TZ": "UTC",
}


@dataclass(frozen=True)
class Qemu:
    """A QEMU that can be run: command prefix, version, where it is from; what stops its wall clock (libfaketime)."""

    command: tuple[str, ...]
    version: str
    origin: str
    faketime: Path

    @property
    def still(self) -> tuple[str, ...]:
        """The command under a wall clock that stands still; it is one process all the same."""
        told = {"LD_PRELOAD": str(self.faketime), **STILL}
        return ("env", *(f"{name}={value}" for name, value in told.items()), *self.command)


@dataclass(frozen=True)
class Shape:
    """What a machine looks like; part of a snapshot's key.

    `clock` is `exact` (one vCPU, one instruction a nanosecond, TCG), `paced` (the same, but an idle machine
    waits in real time) or `real`. A `shared` machine's RAM is a
    file that a device process can map; otherwise the file is mapped privately and stays as it is.
    """

    memory_mib: int = 1024
    clock: str = "exact"
    accelerator: str = "tcg"

    @property
    def counted(self) -> bool:
        """Whether time is counted in instructions."""
        return self.clock in ("exact", "paced")

    @property
    def cpus(self) -> int:
        """A machine that counts has one, since two interleave differently each time."""
        return 1 if self.counted else 2


@dataclass(frozen=True)
class Wiring:
    """The files and sockets of one running machine."""

    vmlinuz: Path
    initrd: Path
    userland: Path
    kernel_disk: Path
    parcel: Path
    ram: Path
    order: Path
    replies: Path
    console: Path
    qmp: Path
    shared: bool = True
    terminal: bool = False
    extra: tuple[str, ...] = field(default=())


def find_qemu(archive: Archive) -> Qemu:
    """The host's QEMU if it is new enough, else Debian's in a private root (fetched once)."""
    faketime = _find_faketime(archive)
    own = shutil.which("qemu-system-x86_64")
    if own:
        version = _version(archive.host, [own])
        if tuple(int(part) for part in version.split(".")[:2]) >= MINIMUM:
            return Qemu((own,), version, "host", faketime)
    package = archive.show("qemu-system-x86")
    if package is None:
        raise SetupError("the archive has no qemu-system-x86")
    key = re.sub(r"[^\w.+~-]", "_", package.version)

    def fetch(into: Path) -> None:
        archive.unpack_closure(["qemu-system-x86"], into)
        for needless in ("usr/share/doc", "usr/share/man", "usr/share/locale"):
            shutil.rmtree(into / needless, ignore_errors=True)

    root = archive.store.built("qemu", key, fetch)
    # Run by the root's own dynamic linker, on the root's own libraries: the host's do not matter.
    command = [
        str(root / "usr/lib64/ld-linux-x86-64.so.2"),
        "--library-path",
        str(root / "usr/lib/x86_64-linux-gnu"),
        str(root / "usr/bin/qemu-system-x86_64"),
    ]
    for folder in ("usr/share/qemu", "usr/share/seabios", "usr/lib/ipxe/qemu"):
        command += ["-L", str(root / folder)]
    upstream = re.search(r"\d+\.\d+\.\d+", package.version)
    version = upstream.group() if upstream else package.version
    return Qemu(tuple(command), version, "private root", faketime)


def _find_faketime(archive: Archive) -> Path:
    """Debian's libfaketime, fetched once: trixie's, as bookworm's cannot do without shared memory."""

    def fetch(into: Path) -> None:
        archive.unpack(["libfaketime/trixie"], into)

    root = archive.store.built("faketime", "trixie", fetch)
    return root / "usr/lib/x86_64-linux-gnu/faketime/libfaketime.so.1"


def _version(host: LocalHost, command: Sequence[str]) -> str:
    output = host.run([*command, "--version"]).output
    found = re.search(r"version (\d+\.\d+(\.\d+)?)", output)
    if not found:
        raise SetupError("QEMU does not say its version", output.splitlines()[:3])
    return found.group(1)


def command_line(qemu: Qemu, shape: Shape, wiring: Wiring) -> list[str]:
    """The whole command of a machine; the same for a cold start and (plus `-incoming`) a restore."""
    if shape.counted:
        # One that shares its memory may be saved; one that records cannot be.
        recorded = ALONE if shape.clock == "exact" and not (wiring.shared or wiring.terminal) else ""
        sleep = "off" if shape.clock == "exact" else "on"
        accel = ["-accel", "tcg,thread=single", "-icount", f"shift=0,sleep={sleep}{recorded}"]
    elif shape.accelerator == "kvm":
        accel = ["-accel", "kvm"]
    else:
        accel = ["-accel", "tcg,thread=multi"]
    # Plain Nehalem is cheap to emulate; without RDRAND Python waits for the random pool.
    cpu = "host" if shape.accelerator == "kvm" else "Nehalem,+rdrand"
    size = f"{shape.memory_mib}M"
    share = "on" if wiring.shared else "off"
    return [
        *(qemu.still if shape.clock == "exact" else qemu.command),
        *("-nodefaults", "-no-user-config", "-no-reboot", "-display", "none", "-seed", "1"),
        *("-machine", "q35,memory-backend=ram,usb=off,vmport=off"),
        *accel,
        # The kernel puts CPUs on its emulated nodes in turn, and warns of two on one socket.
        *("-cpu", cpu, "-smp", f"{shape.cpus},sockets={shape.cpus}", "-m", size),
        *("-object", f"memory-backend-file,id=ram,size={size},mem-path={wiring.ram},share={share}"),
        *("-rtc", "base=2026-01-01T00:00:00,clock=vm" if shape.counted else "base=utc"),
        *(
            "-kernel",
            str(wiring.vmlinuz),
            "-initrd",
            str(wiring.initrd),
            "-append",
            kernel_command_line(shape),
        ),
        *_disk("user", wiring.userland),
        *_disk("kernel", wiring.kernel_disk),
        *_disk("parcel", wiring.parcel),
        *("-chardev", f"file,id=console,path={wiring.console}", "-device", "isa-serial,chardev=console"),
        *("-chardev", "stdio,id=terminal,signal=off" if wiring.terminal else "null,id=terminal"),
        *("-device", "isa-serial,chardev=terminal"),
        *("-chardev", f"file,id=replies,path={wiring.replies}"),
        *("-device", f"virtio-serial-pci,{AT_ONCE}"),
        *("-device", "virtserialport,chardev=replies,name=odp.replies"),
        # Room for a card's 64-bit BAR behind a port that takes hot-plug.
        *("-device", "pcie-root-port,id=cardport,bus=pcie.0,chassis=1,pref64-reserve=128M"),
        *("-device", "pcie-root-port,id=diskport,bus=pcie.0,chassis=2"),
        *("-fw_cfg", f"name=opt/odp/order,file={wiring.order}"),
        *("-qmp", f"unix:{wiring.qmp},server=on,wait=off"),
        *("-global", "migration.x-ignore-shared=on"),
        *wiring.extra,
    ]


def kernel_command_line(shape: Shape) -> str:
    """Quiet enough to boot fast, loud enough that a WARN reaches the console."""
    words = [
        "console=ttyS0",
        "loglevel=6",
        "panic=-1",
        "nokaslr",
        "mitigations=off",
        "tsc=reliable",
        "no_timer_check",
        "unknown_nmi_panic",  # how a hanging guest is made to say where it hangs
        "nowatchdog" if shape.counted else "watchdog_thresh=60",
        "random.trust_cpu=on",
        "net.ifnames=0",
        # As Debian's kernels are built; with it a page that is freed is looked at (BUG: Bad page state).
        # Ref: Linux 7.3 mm/mm_init.c, mem_debugging_and_hardening_init
        "init_on_alloc=1",
        "numa=fake=2",  # pages have somewhere to move; a case says when
        "numa_balancing=disable",
        # DAMON (which Debian starts by itself) clears accessed bits and leaves the TLB as it is. Whether the next
        # access sets them again depends on what QEMU's TLB holds, and QEMU resizes that by the host's clock.
        # Ref: Linux 7.3 mm/damon/stat.c; QEMU 11.1 accel/tcg/cputlb.c, tlb_mmu_resize_locked
        "damon_stat.enabled=N",
    ]
    return " ".join(words)


def _disk(name: str, path: Path) -> list[str]:
    return [
        *("-drive", f"if=none,id={name},format=raw,readonly=on,file.locking=off,file={path}"),
        *("-device", f"virtio-blk-pci,drive={name},{AT_ONCE}"),
    ]


def probe_accelerator(qemu: Qemu, vmlinuz: Path, host: LocalHost, store: Store) -> tuple[str, str]:
    """Which accelerator works here, and why: a kernel is booted under KVM until it speaks, with a deadline.

    The answer is kept for this boot of the host, so that the deadline is waited for once.
    """
    device = Path("/dev/kvm")
    if not os.access(device, os.R_OK | os.W_OK):
        return "tcg", f"{device} {'is not yours to use' if device.exists() else 'does not exist'}"
    boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    known = store.root / "accelerator"
    if known.is_file() and known.read_text().startswith(boot):
        _, name, why = known.read_text().split("\n", 2)
        return name, why
    began = time.monotonic()
    with host.ledger.scratch_folder("probe") as folder:
        console = folder / "console"
        argv = [*qemu.command, "-nodefaults", "-no-user-config", "-no-reboot", "-display", "none"]
        argv += ["-accel", "kvm", "-cpu", "host", "-m", "256M", "-kernel", str(vmlinuz)]
        argv += ["-append", "console=ttyS0 panic=-1", "-serial", f"file:{console}"]
        try:
            # Without a root file system the kernel panics and QEMU ends: that is the wanted end.
            host.run(argv, timeout_s=PROBE_DEADLINE_S)
            booted = "Linux version" in console.read_text(errors="replace")
            name = "kvm" if booted else "tcg"
            why = (
                f"a guest booted under it in {time.monotonic() - began:.1f} s"
                if booted
                else "a guest said nothing"
            )
        except CommandError as error:
            name, why = "tcg", f"/dev/kvm exists, but a guest did not boot under it: {error.headline}"
    known.write_text(f"{boot}\n{name}\n{why}")
    return name, why
