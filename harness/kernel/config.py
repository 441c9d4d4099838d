"""What a machine of ours asks of a kernel's configuration, and what one lacks of it."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

# By what needs it. A name that a kernel does not know counts as lacking, so only those are here that all of 6.1 to 7.3
# have. It is enough to boot a kernel that has nothing else (make allnoconfig).
BUILT_IN: Mapping[str, tuple[str, ...]] = {
    "an initial RAM disk that is a script": ("BLK_DEV_INITRD", "BINFMT_ELF", "BINFMT_SCRIPT"),
    "the console": ("PRINTK", "TTY", "SERIAL_8250", "SERIAL_8250_CONSOLE", "UNIX98_PTYS", "MAGIC_SYSRQ"),
    "the machine": (
        *("SMP", "ACPI", "PCI", "PCI_MSI", "PCIEPORTBUS"),
        # q35 plugs through ACPI unless it is told otherwise.
        *("HOTPLUG_PCI", "HOTPLUG_PCI_PCIE", "HOTPLUG_PCI_ACPI"),
    ),
    "disks": ("BLOCK", "BLK_DEV", "VIRTIO_MENU", "MISC_FILESYSTEMS", "EROFS_FS_ZIP"),
    "file systems": ("DEVTMPFS", "PROC_FS", "SYSCTL", "SYSFS", "TMPFS", "TMPFS_XATTR", "DEBUG_FS"),
    "Python": ("MULTIUSER", "FUTEX", "EPOLL", "EVENTFD", "POSIX_TIMERS", "FILE_LOCKING"),
    "modules": ("MODULES", "MODULE_UNLOAD", "KALLSYMS"),
    "what a case leaves": ("PROC_CHILDREN",),
    "tracing": (
        *("BPF_SYSCALL", "BPF_JIT", "BPF_EVENTS", "PERF_EVENTS", "KPROBES", "KPROBE_EVENTS"),
        *("FTRACE", "FUNCTION_TRACER", "DYNAMIC_FTRACE", "DEBUG_INFO_BTF", "DEBUG_INFO_BTF_MODULES"),
    ),
    "the network": ("NET", "UNIX", "INET", "NETDEVICES", "NET_CORE"),
    "losing pages": (
        *("ADVISE_SYSCALLS", "SWAP", "MIGRATION", "COMPACTION", "CGROUPS", "MEMCG", "NUMA", "NUMA_EMU"),
        *("HUGETLBFS", "TRANSPARENT_HUGEPAGE", "PROC_PAGE_MONITOR", "USERFAULTFD", "MEMORY_FAILURE"),
    ),
    "on-demand paging": ("INFINIBAND_ON_DEMAND_PAGING",),
}
EITHER: Mapping[str, tuple[str, ...]] = {
    "disks": ("VIRTIO_PCI", "VIRTIO_BLK", "VIRTIO_CONSOLE", "EROFS_FS", "OVERLAY_FS"),
    "orders": ("FW_CFG_SYSFS",),
    "swap": ("ZRAM",),
    "memory in pieces": ("PACKET",),
}
# What must be modules: they are unloaded, replaced by what a patch makes of them, and traced as such.
MODULES: Mapping[str, tuple[str, ...]] = {"RDMA": ("INFINIBAND", "INFINIBAND_USER_ACCESS")}
# What only machines with a device of this family need, and how.
DEVICES: Mapping[str, Mapping[str, str]] = {
    "soft-roce": {"RDMA_RXE": "m", "DUMMY": "ym"},
    "connectx": {"MLX5_CORE": "m", "MLX5_CORE_EN": "y", "MLX5_INFINIBAND": "m"},
}
# With these no module that is built here is loaded.
FORBIDDEN = ("MODULE_SIG_FORCE", "LOCK_DOWN_KERNEL_FORCE_INTEGRITY", "LOCK_DOWN_KERNEL_FORCE_CONFIDENTIALITY")
# No need in themselves, but in a small configuration some of the above hang from them.
BESIDE = (
    *("64BIT", "EXPERT", "SHMEM", "X86_64_ACPI_NUMA", "ETHERNET", "NET_VENDOR_MELLANOX"),
    *("INFINIBAND_ADDR_TRANS", "DETECT_HUNG_TASK"),
)
# The same, where one's own configuration lacks it most: without it olddefconfig takes the other back.
HANGS = {
    "DEBUG_INFO_BTF": ("DEBUG_KERNEL", "DEBUG_INFO_DWARF_TOOLCHAIN_DEFAULT"),
    "MEMORY_FAILURE": ("X86_MCE",),
}


@dataclass(frozen=True)
class MissingOption:
    """An option that is not as it must be: `allowed` are the values that would do (`n`: only none), `why` who asks."""

    name: str
    allowed: str
    has: str
    why: str

    def __str__(self) -> str:
        wanted = " or ".join(self.allowed)
        return f"CONFIG_{self.name}={wanted}: for {self.why}" + (f" (it is {self.has})" if self.has else "")


def read(text: str) -> dict[str, str]:
    """Options of a .config (or auto.conf) that are set, without their prefix."""
    return dict(re.findall(r"^CONFIG_(\w+)=(.*)$", text, re.M))


def lacking(options: Mapping[str, str]) -> tuple[MissingOption, ...]:
    """What every machine needs and these options have not got; of devices that one at least can be had."""
    found = [
        MissingOption(name, allowed, options.get(name, ""), why)
        for name, allowed, why in _needs()
        if (options.get(name) or "n") not in allowed
    ]
    without = [lacking_for(family, options) for family in DEVICES]
    if all(without):
        found += sorted(without, key=len)[0]
    return tuple(found)


def lacking_for(family: str, options: Mapping[str, str]) -> tuple[MissingOption, ...]:
    """What machines with a device of this family (a device without one: its own name) need besides."""
    return tuple(
        MissingOption(name, allowed, options.get(name, ""), f"the device {family}")
        for name, allowed in DEVICES.get(family, {}).items()
        if (options.get(name) or "n") not in allowed
    )


def settings() -> Iterator[str]:
    """Lines for a .config that give a machine all it needs."""
    for name in (*BESIDE, *(name for names in HANGS.values() for name in names)):
        yield f"CONFIG_{name}=y"
    devices = ((name, allowed, "") for needs in DEVICES.values() for name, allowed in needs.items())
    for name, allowed, _ in (*_needs(), *devices):
        yield f"# CONFIG_{name} is not set" if allowed == "n" else f"CONFIG_{name}={allowed[-1]}"


def commands(lacks: tuple[MissingOption, ...]) -> str:
    """What scripts/config of a kernel tree is told, to mend what is lacking."""
    flags = {"y": "-e", "m": "-m", "n": "-d"}
    words = [f"{flags[lack.allowed[-1]]} {lack.name}" for lack in lacks]
    words += [f"-e {name}" for lack in lacks for name in HANGS.get(lack.name, ())]
    return " ".join(["scripts/config", *words])


def _needs() -> Iterator[tuple[str, str, str]]:
    """Name, allowed values and reason of what every machine needs."""
    for table, allowed in ((BUILT_IN, "y"), (EITHER, "ym"), (MODULES, "m")):
        for why, names in table.items():
            yield from ((name, allowed, why) for name in names)
    for name in FORBIDDEN:
        yield name, "n", "modules that are built here"
