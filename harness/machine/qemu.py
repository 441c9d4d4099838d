"""QEMU: find one, choose the accelerator, write the command line of a machine."""

from __future__ import annotations

import os
import re
import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from harness.debian import Archive
from harness.errors import SetupError
from harness.host import CommandError, LocalHost
from harness.store import Store
from harness.values.case import Request

# vfio-user-pci, which the emulated ConnectX needs, came with 10.1.
MIN_VERSION = (10, 1)
PROBE_DEADLINE_S = 15.0

# With an eventfd QEMU looks at each virtqueue once more after a restore, from another thread: the virtio-serial
# device then interrupts the guest at an instant that depends on the host. Ref: QEMU 11.1
# hw/virtio/virtio.c (virtio_device_start_ioeventfd_impl), hw/char/virtio-serial-bus.c (do_flush_queued_data)
SYNCHRONOUS = "ioeventfd=off"

# With record/replay QEMU's main loop waits while the guest runs. Otherwise, when the guest halts, that loop may skip
# the idle time before the last instructions are counted: sometimes by 3 to 16 ns.
# Ref: QEMU 11.1 accel/tcg/icount-common.c, icount_start_warp_timer; tcg-accel-ops-icount.c, icount_process_data
RECORD = ",rr=record,rrfile=/dev/null"

# QEMU resizes its TLB by the host's wall clock, and a guest can see what is in it: between the change of a page table
# and its flush another thread finds the old entry or the new. So libfaketime stops that clock in exact time. Its
# shared memory is off: it would outlive a killed QEMU. So is its correction of waits by the monotonic clock: it ends
# them at once, and vfio-user waits in that way for a card's replies.
# Ref: QEMU 11.1 accel/tcg/cputlb.c, tlb_mmu_resize_locked, get_clock_realtime; hw/vfio-user/proxy.c,
# vfio_user_send_wait; libfaketime 0.9.10 README, FAKETIME_FORCE_MONOTONIC_FIX
FIXED_CLOCK = {
    "FAKETIME": "2026-01-01 00:00:00",
    "FAKETIME_DONT_FAKE_MONOTONIC": "1",
    "FAKETIME_DISABLE_SHM": "1",
    "FAKETIME_FORCE_MONOTONIC_FIX": "0",
    "NO_FAKE_STAT": "1",
    "TZ": "UTC",
}


@dataclass(frozen=True)
class Qemu:
    """A QEMU: command prefix, version, origin; and libfaketime, which stops its wall clock."""

    command: tuple[str, ...]
    version: str
    origin: str
    faketime: Path

    @property
    def with_fixed_clock(self) -> tuple[str, ...]:
        """Command with a wall clock that does not move; env(1) replaces itself, so it is one process."""
        variables = {"LD_PRELOAD": str(self.faketime), **FIXED_CLOCK}
        return ("env", *(f"{name}={value}" for name, value in variables.items()), *self.command)


@dataclass(frozen=True)
class Shape:
    """Hardware of a machine; part of a snapshot's key.

    `clock` is `exact` (one vCPU, one instruction a nanosecond, TCG), `icount` (the same, but an idle machine
    waits in real time) or `real`.
    """

    memory_mib: int = 1024
    clock: str = "exact"
    accelerator: str = "tcg"

    @property
    def counted(self) -> bool:
        """True if time is counted in instructions."""
        return self.clock in ("exact", "icount")

    @property
    def cpus(self) -> int:
        """Number of vCPUs: one where time is counted, since two interleave differently each time."""
        return 1 if self.counted else 2


@dataclass(frozen=True)
class Disks:
    """Read-only files that a machine boots from."""

    vmlinuz: Path
    initrd: Path
    userland: Path
    kernel: Path
    payload: Path


@dataclass(frozen=True)
class MachineConfig:
    """One machine: `shape`, `disks`, the `request` that its agent finds, and the file of its RAM.

    With `incoming` it is restored from that state file and `ram` is the memory saved with it, otherwise it boots.
    The RAM of a `shared` machine can be mapped by the process of a device, and saved; otherwise the file is mapped
    privately and does not change. A `paused` machine waits for `go_on` (to plug a device); a `held` one waits for a
    debugger. `terminal` connects a second serial port to stdin and stdout. `extra` are more options for QEMU.
    """

    shape: Shape
    disks: Disks
    request: Request
    ram: Path
    incoming: Path | None = None
    shared: bool = True
    paused: bool = False
    held: bool = False
    terminal: bool = False
    extra: tuple[str, ...] = ()


@dataclass(frozen=True)
class Channels:
    """Files and the socket through which a machine is reached, in a folder of its own."""

    folder: Path

    @property
    def request(self) -> Path:
        """File that fw_cfg presents to the guest."""
        return self.folder / "request"

    @property
    def replies(self) -> Path:
        """File that the agent's virtio port writes."""
        return self.folder / "replies"

    @property
    def console(self) -> Path:
        """Log of the first serial port."""
        return self.folder / "console"

    @property
    def qmp(self) -> Path:
        """Socket of QEMU's monitor."""
        return self.folder / "qmp"


def find_qemu(archive: Archive) -> Qemu:
    """Find the host's QEMU if it is new enough, else unpack Debian's into a private root."""
    faketime = _find_faketime(archive)
    own = shutil.which("qemu-system-x86_64")
    if own:
        version = _version(archive.host, [own])
        if tuple(int(part) for part in version.split(".")[:2]) >= MIN_VERSION:
            return Qemu((own,), version, "host", faketime)
    package = archive.show("qemu-system-x86")
    if package is None:
        raise SetupError("the archive has no qemu-system-x86")
    key = re.sub(r"[^\w.+~-]", "_", package.version)

    def fetch(into: Path) -> None:
        archive.unpack_closure(["qemu-system-x86"], into)
        for unused in ("usr/share/doc", "usr/share/man", "usr/share/locale"):
            shutil.rmtree(into / unused, ignore_errors=True)

    root = archive.store.built("qemu", key, fetch)
    # Run by the root's dynamic linker with the root's libraries: independent of the host's.
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
    """Unpack Debian's libfaketime: trixie's, as bookworm's needs shared memory."""

    def fetch(into: Path) -> None:
        archive.unpack(["libfaketime/trixie"], into)

    root = archive.store.built("faketime", "trixie", fetch)
    return root / "usr/lib/x86_64-linux-gnu/faketime/libfaketime.so.1"


def _version(host: LocalHost, command: Sequence[str]) -> str:
    output = host.run([*command, "--version"]).output
    match = re.search(r"version (\d+\.\d+(\.\d+)?)", output)
    if not match:
        raise SetupError("QEMU does not print its version", output.splitlines()[:3])
    return match.group(1)


def command_line(qemu: Qemu, config: MachineConfig, channels: Channels) -> list[str]:
    """Write the whole command of a machine; the same for a cold boot and (plus `-incoming`) a restore."""
    shape, disks = config.shape, config.disks
    # Plain Nehalem is cheap to emulate; without RDRAND Python waits for the random pool.
    cpu = "host" if shape.accelerator == "kvm" else "Nehalem,+rdrand"
    size = f"{shape.memory_mib}M"
    share = "on" if config.shared else "off"
    return [
        *(qemu.with_fixed_clock if shape.clock == "exact" else qemu.command),
        *("-nodefaults", "-no-user-config", "-no-reboot", "-display", "none", "-seed", "1"),
        *("-machine", "q35,memory-backend=ram,usb=off,vmport=off"),
        *_accelerator(config),
        # The kernel puts CPUs on its emulated nodes in turn, and warns of two on one socket.
        *("-cpu", cpu, "-smp", f"{shape.cpus},sockets={shape.cpus}", "-m", size),
        *("-object", f"memory-backend-file,id=ram,size={size},mem-path={config.ram},share={share}"),
        *("-rtc", "base=2026-01-01T00:00:00,clock=vm" if shape.counted else "base=utc"),
        *("-kernel", str(disks.vmlinuz), "-initrd", str(disks.initrd)),
        *("-append", kernel_command_line(shape)),
        *_disk("user", disks.userland),
        *_disk("kernel", disks.kernel),
        *_disk("payload", disks.payload),
        *("-chardev", f"file,id=console,path={channels.console}", "-device", "isa-serial,chardev=console"),
        *("-chardev", "stdio,id=terminal,signal=off" if config.terminal else "null,id=terminal"),
        *("-device", "isa-serial,chardev=terminal"),
        *("-chardev", f"file,id=replies,path={channels.replies}"),
        *("-device", f"virtio-serial-pci,{SYNCHRONOUS}"),
        *("-device", "virtserialport,chardev=replies,name=odp.replies"),
        # Room for a card's 64-bit BAR behind a hot-plug port.
        *("-device", "pcie-root-port,id=cardport,bus=pcie.0,chassis=1,pref64-reserve=128M"),
        *("-device", "pcie-root-port,id=diskport,bus=pcie.0,chassis=2"),
        *("-fw_cfg", f"name=opt/odp/request,file={channels.request}"),
        *("-qmp", f"unix:{channels.qmp},server=on,wait=off"),
        *("-global", "migration.x-ignore-shared=on"),
        *config.extra,
        *(("-incoming", f"file:{config.incoming}") if config.incoming is not None else ()),
        *(("-S",) if config.paused or config.held else ()),
    ]


def _accelerator(config: MachineConfig) -> tuple[str, ...]:
    shape = config.shape
    if shape.counted:
        # A machine with shared memory may be saved; one that records cannot be.
        record = RECORD if shape.clock == "exact" and not (config.shared or config.terminal) else ""
        sleep = "off" if shape.clock == "exact" else "on"
        return ("-accel", "tcg,thread=single", "-icount", f"shift=0,sleep={sleep}{record}")
    return ("-accel", "kvm" if shape.accelerator == "kvm" else "tcg,thread=multi")


def kernel_command_line(shape: Shape) -> str:
    """Write the kernel's command line: quiet enough to boot fast, loud enough to show a WARN on the console."""
    words = [
        "console=ttyS0",
        "loglevel=6",
        "panic=-1",
        "nokaslr",
        "mitigations=off",
        "tsc=reliable",
        "no_timer_check",
        "unknown_nmi_panic",  # gets the stack of a hanging guest
        "nowatchdog" if shape.counted else "watchdog_thresh=60",
        "random.trust_cpu=on",
        "net.ifnames=0",
        # Debian's default; with it a freed page is checked (BUG: Bad page state).
        # Ref: Linux 7.3 mm/mm_init.c, mem_debugging_and_hardening_init
        "init_on_alloc=1",
        "numa=fake=2",  # a second node to migrate pages to; cases do it
        "numa_balancing=disable",
        # DAMON (on by default in Debian) clears accessed bits and does not flush the TLB. Whether the next access sets
        # them again depends on the content of QEMU's TLB, and QEMU resizes that by the host's clock.
        # Ref: Linux 7.3 mm/damon/stat.c; QEMU 11.1 accel/tcg/cputlb.c, tlb_mmu_resize_locked
        "damon_stat.enabled=N",
    ]
    return " ".join(words)


def _disk(name: str, path: Path) -> list[str]:
    return [
        *("-drive", f"if=none,id={name},format=raw,readonly=on,file.locking=off,file={path}"),
        *("-device", f"virtio-blk-pci,drive={name},{SYNCHRONOUS}"),
    ]


def probe_accelerator(qemu: Qemu, vmlinuz: Path, host: LocalHost, store: Store) -> tuple[str, str]:
    """Boot a kernel under KVM until it prints something; return the accelerator that works here, and why.

    The answer is cached for this boot of the host, so the deadline passes once at most.
    """
    device = Path("/dev/kvm")
    if not os.access(device, os.R_OK | os.W_OK):
        return "tcg", f"{device} {'is not accessible' if device.exists() else 'does not exist'}"
    boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    cached = store.root / "accelerator"
    if cached.is_file() and cached.read_text().startswith(boot):
        _, name, why = cached.read_text().split("\n", 2)
        return name, why
    began = time.monotonic()
    with host.ledger.scratch_folder("probe") as folder:
        console = folder / "console"
        argv = [*qemu.command, "-nodefaults", "-no-user-config", "-no-reboot", "-display", "none"]
        argv += ["-accel", "kvm", "-cpu", "host", "-m", "256M", "-kernel", str(vmlinuz)]
        argv += ["-append", "console=ttyS0 panic=-1", "-serial", f"file:{console}"]
        try:
            # Without a root file system the kernel panics and QEMU exits, as expected.
            host.run(argv, timeout_s=PROBE_DEADLINE_S)
            booted = "Linux version" in console.read_text(errors="replace")
            name = "kvm" if booted else "tcg"
            why = (
                f"a guest booted under it in {time.monotonic() - began:.1f} s"
                if booted
                else "a guest printed nothing"
            )
        except CommandError as error:
            name, why = "tcg", f"/dev/kvm exists, but a guest did not boot under it: {error.headline}"
    cached.write_text(f"{boot}\n{name}\n{why}")
    return name, why
