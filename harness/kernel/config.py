"""Options that our guests need in a kernel's configuration, and those that a configuration lacks."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

# By what needs them. A name that a kernel does not know counts as missing, so these are in all of 6.1 to 7.3.
# They are enough to boot a kernel that has nothing else (make allnoconfig).
BUILT_IN: Mapping[str, tuple[str, ...]] = {
    "an initial RAM disk that is a script": ("BLK_DEV_INITRD", "BINFMT_ELF", "BINFMT_SCRIPT"),
    "the console": ("PRINTK", "TTY", "SERIAL_8250", "SERIAL_8250_CONSOLE", "UNIX98_PTYS", "MAGIC_SYSRQ"),
    "the machine": (
        *("SMP", "ACPI", "PCI", "PCI_MSI", "PCIEPORTBUS"),
        # q35 hot-plugs through ACPI by default.
        *("HOTPLUG_PCI", "HOTPLUG_PCI_PCIE", "HOTPLUG_PCI_ACPI"),
    ),
    "disks": ("BLOCK", "BLK_DEV", "VIRTIO_MENU", "MISC_FILESYSTEMS", "EROFS_FS_ZIP"),
    "file systems": ("DEVTMPFS", "PROC_FS", "SYSCTL", "SYSFS", "TMPFS", "TMPFS_XATTR", "DEBUG_FS"),
    "Python": ("MULTIUSER", "FUTEX", "EPOLL", "EVENTFD", "POSIX_TIMERS", "FILE_LOCKING"),
    "modules": ("MODULES", "MODULE_UNLOAD", "KALLSYMS"),
    "leak checks": ("PROC_CHILDREN",),
    "tracing": (
        *("BPF_SYSCALL", "BPF_JIT", "BPF_EVENTS", "PERF_EVENTS", "KPROBES", "KPROBE_EVENTS"),
        *("FTRACE", "FUNCTION_TRACER", "DYNAMIC_FTRACE", "DEBUG_INFO_BTF", "DEBUG_INFO_BTF_MODULES"),
    ),
    "the network": ("NET", "UNIX", "INET", "NETDEVICES", "NET_CORE"),
    "page loss": (
        *("ADVISE_SYSCALLS", "SWAP", "MIGRATION", "COMPACTION", "CGROUPS", "MEMCG", "NUMA", "NUMA_EMU"),
        *("HUGETLBFS", "TRANSPARENT_HUGEPAGE", "PROC_PAGE_MONITOR", "USERFAULTFD", "MEMORY_FAILURE"),
    ),
    "on-demand paging": ("INFINIBAND_ON_DEMAND_PAGING",),
}
EITHER: Mapping[str, tuple[str, ...]] = {
    "disks": ("VIRTIO_PCI", "VIRTIO_BLK", "VIRTIO_CONSOLE", "EROFS_FS", "OVERLAY_FS"),
    "requests to the agent": ("FW_CFG_SYSFS",),
    "swap": ("ZRAM",),
    "fragmented memory": ("PACKET",),
}
# Must be modules: cases unload them, patches replace them, probes find them by module.
MODULES: Mapping[str, tuple[str, ...]] = {"RDMA": ("INFINIBAND", "INFINIBAND_USER_ACCESS")}
# Needed only with a device of this family, and as which of y, m.
DEVICES: Mapping[str, Mapping[str, str]] = {
    "soft-roce": {"RDMA_RXE": "m", "DUMMY": "ym"},
    "connectx": {"MLX5_CORE": "m", "MLX5_CORE_EN": "y", "MLX5_INFINIBAND": "m"},
}
# These keep a module that is built here from loading.
FORBIDDEN = ("MODULE_SIG_FORCE", "LOCK_DOWN_KERNEL_FORCE_INTEGRITY", "LOCK_DOWN_KERNEL_FORCE_CONFIDENTIALITY")
# Kconfig dependencies of the above, which a small configuration may lack.
DEPENDENCIES = (
    *("64BIT", "EXPERT", "SHMEM", "X86_64_ACPI_NUMA", "ETHERNET", "NET_VENDOR_MELLANOX"),
    *("INFINIBAND_ADDR_TRANS", "DETECT_HUNG_TASK"),
)
# Dependencies that a configuration of one's own often lacks: without them olddefconfig drops the option again.
SELECTS = {
    "DEBUG_INFO_BTF": ("DEBUG_KERNEL", "DEBUG_INFO_DWARF_TOOLCHAIN_DEFAULT"),
    "MEMORY_FAILURE": ("X86_MCE",),
}


@dataclass(frozen=True)
class MissingOption:
    """An option with a wrong value: `allowed` are the right ones (`n`: unset), `why` names what needs it."""

    name: str
    allowed: str
    has: str
    why: str

    def __str__(self) -> str:
        values = " or ".join(self.allowed)
        return f"CONFIG_{self.name}={values}: for {self.why}" + (f" (it is {self.has})" if self.has else "")


def read(text: str) -> dict[str, str]:
    """Parse the options that a .config (or auto.conf) sets: {name without prefix: value}."""
    return dict(re.findall(r"^CONFIG_(\w+)=(.*)$", text, re.M))


def lacking(options: Mapping[str, str]) -> tuple[MissingOption, ...]:
    """List the options that every guest needs and these do not set; at least one family of devices must be possible."""
    missing = [
        MissingOption(name, allowed, options.get(name, ""), why)
        for name, allowed, why in _needs()
        if (options.get(name) or "n") not in allowed
    ]
    without = [lacking_for(family, options) for family in DEVICES]
    if all(without):
        missing += sorted(without, key=len)[0]
    return tuple(missing)


def lacking_for(family: str, options: Mapping[str, str]) -> tuple[MissingOption, ...]:
    """List the missing options that only a device of this family (or of this name, without one) needs."""
    return tuple(
        MissingOption(name, allowed, options.get(name, ""), f"the device {family}")
        for name, allowed in DEVICES.get(family, {}).items()
        if (options.get(name) or "n") not in allowed
    )


def settings() -> Iterator[str]:
    """Yield lines for a .config that satisfies all needs."""
    for name in (*DEPENDENCIES, *(name for names in SELECTS.values() for name in names)):
        yield f"CONFIG_{name}=y"
    devices = ((name, allowed, "") for needs in DEVICES.values() for name, allowed in needs.items())
    for name, allowed, _ in (*_needs(), *devices):
        yield f"# CONFIG_{name} is not set" if allowed == "n" else f"CONFIG_{name}={allowed[-1]}"


def commands(missing: tuple[MissingOption, ...]) -> str:
    """Write the scripts/config command that sets what is missing in a kernel tree."""
    flags = {"y": "-e", "m": "-m", "n": "-d"}
    arguments = [f"{flags[option.allowed[-1]]} {option.name}" for option in missing]
    arguments += [f"-e {name}" for option in missing for name in SELECTS.get(option.name, ())]
    return " ".join(["scripts/config", *arguments])


def _needs() -> Iterator[tuple[str, str, str]]:
    """Yield name, allowed values and reason of each option that every guest needs."""
    for table, allowed in ((BUILT_IN, "y"), (EITHER, "ym"), (MODULES, "m")):
        for why, names in table.items():
            yield from ((name, allowed, why) for name in names)
    for name in FORBIDDEN:
        yield name, "n", "modules that are built here"
