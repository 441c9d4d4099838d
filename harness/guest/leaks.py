"""Objects that a case may leak, counted before and after."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Dict, Optional, Tuple

from harness.guest.rdma.nldev import (
    Device,
    NlDev,
)
from harness.values.answer import Leak

_MODULES = ("rdma_rxe", "ib_uverbs", "ib_core", "mlx5_ib", "mlx5_core")
_REFRESH = Path("/proc/sys/vm/stat_refresh")
# Some objects are freed a little after the call that released them.
_SETTLE_TRIES = 20
_SETTLE_S = 0.01


def count(nldev: NlDev, device: Optional[Device]) -> Dict[str, int]:
    """Count everything that a case may leak, by name; a device that is gone has nothing."""
    objects = nldev.resources(device) if device is not None else {}
    counts = {name.upper(): number for name, number in objects.items()}
    for module in _MODULES:
        references = Path(f"/sys/module/{module}/refcnt")
        if references.exists():
            counts[f"references of module {module}"] = int(_read(references))
    counts["pinned kB of this process"] = _status_field("VmPin")
    counts["pages pinned in the system"] = _pinned_pages()
    counts["child processes"] = len(_read(Path("/proc/thread-self/children")).split())
    counts["open files"] = len(os.listdir("/proc/self/fd"))  # noqa: PTH208  # no objects made for each
    return counts


def settle(nldev: NlDev, device: Optional[Device], before: Dict[str, int]) -> Tuple[Leak, ...]:
    """Return the counts that grew over `before` and stay so."""
    for attempt in range(_SETTLE_TRIES):
        leaks = compare(before, count(nldev, device))
        if not leaks or attempt == _SETTLE_TRIES - 1:
            break
        time.sleep(_SETTLE_S)
    return leaks


def compare(before: Dict[str, int], after: Dict[str, int]) -> Tuple[Leak, ...]:
    """Return the counts that grew."""
    return tuple(Leak(name, before.get(name, 0), n) for name, n in after.items() if n > before.get(name, 0))


def _status_field(name: str) -> int:
    for line in _read(Path("/proc/self/status")).splitlines():
        if line.startswith(name + ":"):
            return int(line.split()[1])
    return 0


def _pinned_pages() -> int:
    # Each CPU keeps its counts for up to a second; without this, pages unpinned on another CPU are leaks.
    # Ref: Linux 7.3 mm/vmstat.c, vmstat_refresh
    if _REFRESH.exists():
        _read(_REFRESH)
    counters = dict(line.split() for line in _read(Path("/proc/vmstat")).splitlines())
    return int(counters.get("nr_foll_pin_acquired", 0)) - int(counters.get("nr_foll_pin_released", 0))


def _read(path: Path) -> str:
    return path.read_text()
