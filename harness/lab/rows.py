"""The rows of `lab check`: name, command, how to judge, hint. Commands only read, and need no root.

A command's stderr is part of its output; it runs by sh(1) with LC_ALL=C and the sbin folders in PATH.
"""

from __future__ import annotations

from harness.lab.finding import (
    BOTH,
    CARD,
    MISSING,
    NOTE,
    OK,
    SOFT_ROCE,
    Judged,
    Row,
    at_least,
    note,
    one_of,
    present,
    selected,
    version_at_least,
)

MIN_MEMORY_GIB = 1
MIN_DISK_MIB = 100


def _lockdown(output: str) -> Judged:
    state = selected(output)
    if state == "confidentiality":
        return MISSING, "confidentiality: no bcc, no kernel addresses"
    return (OK, state) if state == "none" else (NOTE, f"{state}: modules of ours must be signed")


def _odp_config(output: str) -> Judged:
    return (OK, "y") if output.endswith("=y") else (MISSING, output or "not set")


def _kptr(output: str) -> Judged:
    return (MISSING, "2: addresses are hidden even from root") if output == "2" else (OK, output)


def _soft_odp(output: str) -> Judged:
    return (OK, "in this module") if output != "0" else (MISSING, "this rdma_rxe has none")


def _inbox(output: str) -> Judged:
    path, _, version = output.partition("|")
    if not path:
        return MISSING, "not there"
    if version or "/updates/" in path or "/extra/" in path:
        return MISSING, f"out of tree ({version or path}): its symbols and types are not the kernel's"
    return OK, "the kernel's own"


def _over_card(output: str) -> Judged:
    device, _, driver = output.partition(" ")
    if driver == "mlx5_core":
        return NOTE, f"{device} is a port of the card: unbinding or reloading it would cut this connection"
    return OK, f"{device}, not on a card" if device else "a local address"


def _taint(output: str) -> Judged:
    return (OK, "no") if output == "0" else (NOTE, f"{output}: a module out of tree, or a warning before")


def _panic(output: str) -> Judged:
    return (
        (OK, f"after {output} s")
        if output != "0"
        else (NOTE, "0: a panic hangs until somebody resets the host")
    )


def _mitigations(output: str) -> Judged:
    return NOTE, f"{output} vulnerabilities without mitigation"


_READ = "cat {} 2>/dev/null"
_CONFIG = (
    "{ zcat /proc/config.gz || cat /boot/config-$(uname -r) /lib/modules/$(uname -r)/config; } 2>/dev/null"
)
_SYMBOLS = """f=$(modinfo -n rdma_rxe 2>/dev/null)
case $f in
/*.xz) xz -dc "$f" ;; /*.zst) zstd -dqc "$f" ;; /*.gz) gzip -dc "$f" ;; /*) cat "$f" ;;
*) grep rxe /proc/kallsyms ;;
esac 2>/dev/null | grep -ac rxe_odp_mr_init_user"""
_ROUTE = """d=$(ip -o route get "${SSH_CONNECTION%% *}" | sed -n 's/.* dev \\([^ ]*\\).*/\\1/p')
[ "$d" = lo ] && exit 0
drv=$(readlink "/sys/class/net/$d/device/driver"); echo "$d ${drv##*/}" """
_HEADERS = """r=$(uname -r); [ -e /lib/modules/$r/build/Makefile ] && { echo /lib/modules/$r/build; exit; }
[ -e /sys/kernel/kheaders.tar.xz ] && echo /sys/kernel/kheaders.tar.xz"""
_SECURE_BOOT = """od -An -tu1 -j4 -N1 /sys/firmware/efi/efivars/SecureBoot-* 2>/dev/null |
sed 's/ *1/on/; s/ *0/off/' | grep ."""
_WATCHDOGS = """for d in /sys/class/watchdog/*; do [ -e "$d" ] || continue
echo "${d##*/} $(cat "$d/identity" 2>/dev/null) $(cat "$d/state" 2>/dev/null)"; done"""
_ROOT = """[ "$(id -u)" = 0 ] && { echo root; exit; }
command -v sudo >/dev/null || { echo no root, and no sudo; exit 1; }
sudo -n -l >/dev/null 2>&1 && echo sudo without a password || { echo no root, and sudo asks or refuses; exit 1; }"""

ROWS = (
    Row("rights", "user", 'echo "$(id -un), groups $(id -Gn)"', note),
    Row("rights", "root", _ROOT, present, "log in as root, or a line for this user in sudoers", "", BOTH),
    Row(
        "rights",
        "lockdown",
        "cat /sys/kernel/security/lockdown 2>/dev/null || echo none",
        _lockdown,
        "secure boot off, or lockdown=integrity on the kernel's command line",
        "",
        BOTH,
    ),
    Row("rights", "secure boot", _SECURE_BOOT, note),
    Row(
        "rights",
        "signed modules only",
        _READ.format("/sys/module/module/parameters/sig_enforce"),
        one_of("N", otherwise=NOTE, says="modules of ours must be signed"),
    ),
    Row(
        "rights",
        "kernel addresses",
        _READ.format("/proc/sys/kernel/kptr_restrict"),
        _kptr,
        "sysctl kernel.kptr_restrict=1",
        "",
        BOTH,
    ),
    Row(
        "rights",
        "perf and bpf",
        'echo "perf_event_paranoid $(cat /proc/sys/kernel/perf_event_paranoid), '
        'unprivileged_bpf_disabled $(cat /proc/sys/kernel/unprivileged_bpf_disabled)"',
        note,
    ),
    Row("rights", "sysrq", _READ.format("/proc/sys/kernel/sysrq"), note),
    Row("kernel", "release", "uname -r", note),
    Row("kernel", "machine", "uname -m", note),
    Row("kernel", "distribution", '. /etc/os-release; echo "$PRETTY_NAME"', note),
    Row("kernel", "tainted", _READ.format("/proc/sys/kernel/tainted"), _taint),
    Row(
        "kernel",
        "on-demand paging",
        f"{_CONFIG} | grep -w CONFIG_INFINIBAND_ON_DEMAND_PAGING || echo not set, or no config to read",
        _odp_config,
        "a kernel with CONFIG_INFINIBAND_ON_DEMAND_PAGING=y",
        "",
        BOTH,
    ),
    Row(
        "kernel",
        "rdma_rxe",
        "modinfo -n rdma_rxe",
        present,
        "a kernel with CONFIG_RDMA_RXE=m",
        "",
        (SOFT_ROCE,),
    ),
    Row(
        "kernel",
        "ODP of rdma_rxe",
        _SYMBOLS + " || :",
        _soft_odp,
        "a 7.x kernel: 6.1 and 6.12 have no ODP there",
        "",
        (SOFT_ROCE,),
    ),
    Row(
        "kernel",
        "mlx5_ib",
        "modinfo -n mlx5_ib",
        present,
        "a kernel with CONFIG_MLX5_INFINIBAND=m",
        "",
        (CARD,),
    ),
    Row(
        "kernel",
        "mlx5_core",
        'echo "$(modinfo -n mlx5_core 2>/dev/null)|$(modinfo -F version mlx5_core 2>/dev/null)"',
        _inbox,
        "the kernel's own mlx5 drivers, without MLNX_OFED or DOCA",
        "",
        (CARD,),
    ),
    Row(
        "kernel",
        "BTF",
        "ls /sys/kernel/btf/vmlinux",
        present,
        "a kernel with CONFIG_DEBUG_INFO_BTF=y",
        "",
        BOTH,
    ),
    Row(
        "kernel",
        "BTF of modules",
        "cd /sys/kernel/btf && ls | grep -xE 'mlx5_ib|mlx5_core|ib_core|ib_uverbs|rdma_rxe' | tr '\\n' ' '",
        note,
    ),
    Row("kernel", "headers", _HEADERS, present, "", "linux-headers-{release}", BOTH),
    Row(
        "kernel",
        "compiler",
        "echo \"kernel: $(grep -oE '(gcc|clang)[^,]*' /proc/version); here: gcc $(gcc -dumpfullversion 2>&1)\"",
        note,
    ),
    Row(
        "programs",
        "Python",
        "python3 -c 'import platform; print(platform.python_version())'",
        version_at_least((3, 9)),
        "",
        "python3",
        BOTH,
    ),
    Row(
        "programs",
        "pyverbs",
        "python3 -c 'import pyverbs.device; print(\"there\")'",
        present,
        "",
        "python3-pyverbs",
        BOTH,
    ),
    Row(
        "programs",
        "bcc",
        "python3 -c 'import bcc; print(bcc.__version__)'",
        present,
        "",
        "python3-bpfcc",
        BOTH,
    ),
    Row("programs", "modprobe", "command -v modprobe", present, "", "kmod", BOTH),
    Row("programs", "ip", "command -v ip", present, "", "iproute2", BOTH),
    Row("programs", "rdma", "command -v rdma", note),
    Row("programs", "ibv_devinfo", "command -v ibv_devinfo", present, "", "ibverbs-utils", (CARD,)),
    Row("cards", "users", "rdma resource show 2>/dev/null | tr '\\n' ';'", note),
    Row("cards", "our ssh", _ROUTE, _over_card),
    Row(
        "cards",
        "root file system",
        "findmnt -no FSTYPE,SOURCE /",
        note,
    ),
    Row("iommu", "groups", "ls /sys/kernel/iommu_groups | wc -l", note),
    Row(
        "iommu",
        "command line",
        "grep -oE '(intel_iommu|amd_iommu|iommu)=[^ ]*' /proc/cmdline | tr '\\n' ' '",
        note,
    ),
    Row("crash", "reboot after a panic", _READ.format("/proc/sys/kernel/panic"), _panic),
    Row(
        "crash",
        "kdump",
        "cd /sys/kernel && [ -e kexec_crash_loaded ] && "
        'echo "loaded $(cat kexec_crash_loaded), $(cat kexec_crash_size) bytes"',
        note,
    ),
    Row("crash", "pstore", "grep -v null /sys/module/pstore/parameters/backend || echo none", note),
    Row("crash", "watchdogs", _WATCHDOGS, note),
    Row("crash", "console", _READ.format("/sys/class/tty/console/active"), note),
    Row("crash", "BMC", "ls /dev/ipmi0 2>/dev/null", note),
    Row("speed", "processor", "sed -n 's/^model name.*: //p' /proc/cpuinfo | uniq -c", note),
    Row(
        "speed",
        "governor",
        "cat /sys/devices/system/cpu/cpu*/cpufreq/scaling_governor 2>/dev/null | uniq -c",
        note,
    ),
    Row("speed", "SMT", _READ.format("/sys/devices/system/cpu/smt/control"), note),
    Row("speed", "isolated CPUs", _READ.format("/sys/devices/system/cpu/isolated"), note),
    Row(
        "speed",
        "mitigations",
        "grep -l Vulnerable /sys/devices/system/cpu/vulnerabilities/* | wc -l",
        _mitigations,
    ),
    Row(
        "memory",
        "available",
        "sed -n 's/^MemAvailable: *//p' /proc/meminfo",
        at_least(MIN_MEMORY_GIB, "GiB", 1 << 20),
        "a host with more free memory",
        "",
        BOTH,
    ),
    Row("memory", "nodes", _READ.format("/sys/devices/system/node/online"), note),
    Row("memory", "swap", "sed 1d /proc/swaps | awk '{print $1, $3 \" KiB\"}'", note),
    Row("memory", "huge pages", "grep -E '^HugePages_(Total|Free)' /proc/meminfo | tr -s '\\n ' ' '", note),
    Row(
        "memory",
        "disk",
        "df -Pk /var/tmp | awk 'END {print $4}'",
        at_least(MIN_DISK_MIB, "MiB", 1 << 10),
        "room in /var/tmp",
        "",
        BOTH,
    ),
)
