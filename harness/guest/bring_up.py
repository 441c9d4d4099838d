"""Bring a device up: kernel modules, the verbs library of a card, and what the kernel reports on the console."""

from __future__ import annotations

import ctypes
import subprocess
from pathlib import Path
from typing import Dict, Tuple

# A hung task is reported before a case's deadline; a command that a card loses takes 60 s.
# Ref: Linux 7.3 Documentation/admin-guide/sysctl/kernel.rst
HUNG_TASKS = {"hung_task_timeout_secs": "90", "hung_task_check_interval_secs": "5"}
_KERNEL = Path("/proc/sys/kernel")
_CLEAR_WARN_ONCE = Path("/sys/kernel/debug/clear_warn_once")


def load_modules(names: Tuple[str, ...], facts: Dict[str, str]) -> None:
    """Load kernel modules; one that this kernel lacks is a fact, not an error."""
    for name in names:
        if Path(f"/sys/module/{name}").exists():
            continue
        command = ("modprobe", name)
        done = subprocess.run(command, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, check=False)
        if done.returncode:
            facts[f"module {name}"] = done.stderr.decode(errors="replace").strip()


def require_modules(names: Tuple[str, ...], facts: Dict[str, str]) -> None:
    """Raise RuntimeError, with modprobe's message, if one of the modules could not be loaded."""
    for name in names:
        if f"module {name}" in facts:
            raise RuntimeError(f"{name} does not load: {facts[f'module {name}']}")


def load_provider(name: str, facts: Dict[str, str]) -> None:
    """Load a device's verbs library now, for all cases: without it libibverbs loads every library there is.

    Ref: rdma-core 56 libibverbs/init.c, ibverbs_get_device_list
    """
    try:
        ctypes.CDLL(name)
    except OSError as error:
        facts[f"provider {name}"] = str(error)


def report_hung_tasks() -> None:
    """Make the kernel report hung tasks early, where it can."""
    for name, value in HUNG_TASKS.items():
        if (_KERNEL / name).exists():
            (_KERNEL / name).write_text(value)


def raise_console_level() -> None:
    """Print all but debug messages (stacks of hung tasks are KERN_INFO) on the console, and each warning again.

    Ref: Linux 7.3 Documentation/admin-guide/sysctl/kernel.rst, printk; clearing-warn-once.rst
    """
    (_KERNEL / "printk").write_text("7")
    if _CLEAR_WARN_ONCE.exists():
        _CLEAR_WARN_ONCE.write_text("1")
