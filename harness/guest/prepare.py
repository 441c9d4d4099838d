"""Brings a machine to the point where a case costs only itself: modules, device, swap, probes, a rehearsal.

After it nothing that a case needs is on a disk any more: each operation and each way to lose pages has run
once, so code, bytecode and kernel paths are in memory. That is what makes a restored machine repeat exactly.
"""

from __future__ import annotations

import ctypes
import gc
import os
import platform
import struct
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Dict, List, Optional, Tuple

from harness.guest.cases import run_case
from harness.guest.errors import Unsupported
from harness.guest.kmod import odpnl, session
from harness.guest.mm import libc
from harness.guest.mm.page_loss import LOSSES
from harness.guest.payload import open_parcel
from harness.guest.rdma import mlx5, nldev
from harness.guest.rdma.workloads import PATTERNS
from harness.guest.scenarios.registry import (
    OF_CARDS,
    TASKS,
    run_task,
)
from harness.guest.trace import stages
from harness.guest.trace.bpf_program import Program
from harness.guest.trace.tracer import Tracer
from harness.values import codec
from harness.values.answer import Answer
from harness.values.case import Case, PageLoss, Region, Workload

SOFT_ROCE = "soft-roce"
# Tasks that no known kernel answers with an oops, which would be the end of the preparation.
REHEARSED = ("advise", "rereg", "killed")
DRIVER = ("rdma_rxe",)
MODULES = ("rdma_rxe", "ib_uverbs", "dummy", "zram")
SWAP_BYTES = 64 << 20
# A task that waits for ever is told of before a case's deadline ends; a command that a card loses takes 60 s.
# Ref: Linux 7.3 Documentation/admin-guide/sysctl/kernel.rst
HUNG_TASKS = {"hung_task_timeout_secs": "90", "hung_task_check_interval_secs": "5"}
_KERNEL = Path("/proc/sys/kernel")
_WARNED = Path("/sys/kernel/debug/clear_warn_once")
_ZRAM = Path("/sys/block/zram0/disksize")
_ZRAM_DEVICE = "/dev/zram0"


class Prepared:
    """A prepared machine: the tracer, a netlink socket and what is known about it."""

    def __init__(
        self, device: str, rehearse: bool = True, probes: str = "all", program: Optional[Program] = None
    ) -> None:
        self.facts: Dict[str, str] = {
            "kernel": platform.release(),
            "python": platform.python_version(),
            "device": device,
        }
        self.facts.update(open_parcel())
        watch_hung_tasks()
        self.device = device
        self.tracer: Optional[Tracer] = None
        self._probes = probes
        self._program = program
        if device == SOFT_ROCE:
            self._soft_roce(rehearse)
        else:
            # The card comes after the snapshot; what it can do is known then. Its driver is loaded now, and traced.
            load_modules(mlx5.MODULES, self.facts)
            self._loaded(mlx5.UNLOAD)
            load_provider(mlx5.PROVIDER, self.facts)
            self.nldev = nldev.NlDev()
            self.facts["swap"] = swap_on()
            self._trace()
        speak_up()
        gc.collect()
        gc.freeze()
        gc.disable()

    def _soft_roce(self, rehearse: bool) -> None:
        from harness.guest.rdma.connection import odp_capabilities

        load_modules(MODULES, self.facts)
        self._loaded(DRIVER)
        nldev.bring_up(self.device)
        self.nldev = nldev.NlDev()
        self.facts.update(odp_capabilities(self.device))
        self.facts["swap"] = swap_on()
        self._trace()
        if rehearse:
            self.facts["rehearsed"] = self.rehearse(self.device)

    def _loaded(self, modules: Tuple[str, ...]) -> None:
        """A driver under test that does not load is the end, with modprobe's words."""
        for name in modules:
            if f"module {name}" in self.facts:
                raise RuntimeError(f"{name} does not load: {self.facts[f'module {name}']}")

    def _trace(self) -> None:
        program = self._program or compiled(self.device, self._probes)
        if program is None:
            return
        self.tracer = Tracer(program)
        self.facts.update({f"probe {name}": place for name, place in self.tracer.places.items()})

    def run(self, case: Case) -> Answer:
        """Run a case on the device, whatever the machine calls it."""
        if self.device != SOFT_ROCE:
            try:
                card = mlx5.wait(self.nldev)
            except (Unsupported, OSError) as error:
                return Answer(case.id, "failed", str(error))
            if case.workload.operation in TASKS:
                self._untrace()
                return run_task(case, self.nldev, card)
            case = replace(case, device=card.name)
            if case.module is not None:
                return self._with_module(case, card)
            if case.workload.local.odp or case.workload.remote.odp:
                mlx5.warm(card)
        elif case.workload.operation in OF_CARDS:
            return Answer(case.id, "unsupported", f"{case.workload.operation} is work for a card's driver")
        elif case.workload.operation in TASKS:
            return run_task(case, self.nldev, self.nldev.device(case.device))
        return run_case(case, self.tracer, self.nldev)

    def _with_module(self, case: Case, card: nldev.Device) -> Answer:
        """The module comes first: an event queue of its own can be had only before mlx5_ib made one."""
        try:
            module = session.Module(case, card)
        except Unsupported as error:
            return Answer(case.id, "unsupported", str(error))
        except OSError as error:
            return Answer(case.id, "failed", f"{session.NAME}: {error}")
        try:
            mlx5.warm(card, module.use.mode != "own" and case.workload.remote.odp)
            answer = run_case(case, self.tracer, self.nldev, module.connected)
        finally:
            report = module.close()
        return replace(answer, module=report)

    def capabilities(self) -> Dict[str, str]:
        """What the device, once it is there, says it can do on demand; `device` is what the machine calls it.

        What the kernel module asks of a card is there too, `module.` before its names, if the parcel has it.
        """
        from harness.guest.rdma.connection import odp_capabilities

        if self.device == SOFT_ROCE:
            return {"device": self.device, **odp_capabilities(self.device)}
        card = mlx5.wait(self.nldev)
        found = {"device": card.name, **odp_capabilities(card.name)}
        if session.load():
            with odpnl.Family() as family:
                found.update(
                    {f"module.{name}": words for name, words in session.caps_of(family, card).items()}
                )
        return found

    def close(self) -> None:
        """Take the probes off; the device and the swap stay."""
        self._untrace()
        self.nldev.close()

    def _untrace(self) -> None:
        """A driver with a probe in it cannot be unloaded."""
        if self.tracer is not None:
            self.tracer.close()
            self.tracer = None

    def rehearse(self, device: str) -> str:
        """Run a tiny case of every operation and every loss, as a case is run; says how many did what."""
        outcomes: List[str] = []
        for number, workload in enumerate(rehearsals()):
            case = Case(f"rehearsal-{number}", device, workload, seed=1)
            if workload.operation in TASKS:
                answer = run_task(case, self.nldev, self.nldev.device(device))
            else:
                answer = run_case(case, self.tracer if self._probes == "all" else None, self.nldev)
            codec.dumps(answer)
            outcomes.append(answer.status)
        return ", ".join(f"{outcomes.count(status)} {status}" for status in sorted(set(outcomes)))


def compiled(device: str, probes: str) -> Optional[Program]:
    """The probes of a device's driver; none if none are wanted."""
    driver = stages.RXE if device == SOFT_ROCE else stages.MLX5
    return None if probes == "none" else Program(driver, empty=probes == "empty")


def rehearsals() -> Tuple[Workload, ...]:
    """The workloads of a rehearsal: all operations, all losses, all mappings, each once or more."""
    anonymous = Region(2 * libc.PAGE_BYTES)
    kinds = [
        Workload(
            name,
            2,
            anonymous,
            anonymous,
            PageLoss("dontneed", "both"),
            mtu_bytes=4096 if name == "write" else 1024,
        )
        for name in PATTERNS
    ]
    kinds += [Workload("write", 1, anonymous, anonymous, PageLoss(how, "both")) for how in LOSSES]
    kinds += [
        Workload(
            "write", 1, Region(4096, mapping=mapping), Region(4096, mapping=mapping, odp=odp), PageLoss()
        )
        for mapping, odp in (("shared", True), ("file", False), ("thp", True), ("hugetlb", True))
    ]
    read_only = Region(2 * libc.PAGE_BYTES, prot="read")
    kinds += [Workload("write", 2, read_only, anonymous, PageLoss("dontneed", "both"))]
    kinds += [Workload(name, 1, anonymous, anonymous) for name in REHEARSED]
    return tuple(kinds)


def watch_hung_tasks() -> None:
    """Have the kernel say which tasks hang, where it can."""
    for name, value in HUNG_TASKS.items():
        if (_KERNEL / name).exists():
            (_KERNEL / name).write_text(value)


def speak_up() -> None:
    """Have the console show all but what is for debugging (stacks of hung tasks are no more), and each warning again.

    Ref: Linux 7.3 Documentation/admin-guide/sysctl/kernel.rst, printk; clearing-warn-once.rst
    """
    (_KERNEL / "printk").write_text("7")
    if _WARNED.exists():
        _WARNED.write_text("1")


def load_modules(names: Tuple[str, ...], facts: Dict[str, str]) -> None:
    """Load kernel modules; one that this kernel lacks is a fact, not an error."""
    for name in names:
        if Path(f"/sys/module/{name}").exists():
            continue
        command = ("modprobe", name)
        done = subprocess.run(command, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, check=False)
        if done.returncode:
            facts[f"module {name}"] = done.stderr.decode(errors="replace").strip()


def load_provider(name: str, facts: Dict[str, str]) -> None:
    """Load a device's verbs library now, for every case to find it: without it libibverbs loads all there are.

    Ref: rdma-core 56 libibverbs/init.c, ibverbs_get_device_list
    """
    try:
        ctypes.CDLL(name)
    except OSError as error:
        facts[f"provider {name}"] = str(error)


def swap_header(size_bytes: int) -> bytes:
    """The first page of a swap area. Ref: Linux 7.3 include/linux/swap.h, union swap_header."""
    page = bytearray(libc.PAGE_BYTES)
    struct.pack_into("=III", page, 1024, 1, size_bytes // libc.PAGE_BYTES - 1, 0)
    page[-10:] = b"SWAPSPACE2"
    return bytes(page)


def swap_on() -> str:
    """Swap to compressed memory, so that paging out needs no disk; says what is there or why nothing is."""
    areas = Path("/proc/swaps").read_text().splitlines()[1:]
    if areas:
        return " ".join(areas[0].split()[:3])
    try:
        _ZRAM.write_text(str(SWAP_BYTES))
        device = os.open(_ZRAM_DEVICE, os.O_WRONLY)
        try:
            os.write(device, swap_header(SWAP_BYTES))
            os.fsync(device)
        finally:
            os.close(device)
        libc.swapon(_ZRAM_DEVICE)
    except OSError as error:
        return f"none: {error}"
    return f"{_ZRAM_DEVICE} {SWAP_BYTES >> 20} MiB"
