"""The emulated ConnectX: starts its process, plugs it into a restored machine, collects what it found."""

from __future__ import annotations

import contextlib
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from harness.connectx import __main__ as program
from harness.connectx import card
from harness.connectx.objects.capabilities import (
    ODP,
    Capabilities,
)
from harness.connectx.transport import qemu_options
from harness.connectx.transport.control import ControlClient
from harness.errors import SetupError
from harness.host import LocalHost
from harness.kernel.packages import Kernel
from harness.machine.vm import Machine
from harness.values import codec
from harness.values.case import Request
from harness.values.record import DeviceReport, Finding, Unknown
from harness.values.rule import Outcome, Rule
from harness.wire import ifc

FAMILY = "connectx"
MEMORY = "memory"
MODELS = tuple(card.MODELS)
START_DEADLINE_S = 20.0
END_DEADLINE_S = 5.0
UNPLUG_DEADLINE_S = 30.0
SETTLE_S = 0.5
SETTLE_POLL_S = 0.02
EARLY_S = 60.0
"""When the card's memory is first looked at: by then it has seen some of all that a soak does."""


class Emulated:
    """A card of one model; real time is its default, since its interrupts come at any instant."""

    clock = "real"
    plugged = True
    log = "card-log.gz"

    def __init__(self, model: str) -> None:
        self.name = model

    def prepare(self, number: int) -> Request:
        """Load the drivers; there is no card yet, so one snapshot serves all models."""
        return Request(number, "prepare", FAMILY)

    def firmware_odp(self, kernel: Kernel) -> dict[str, dict[str, tuple[str, ...]]]:
        """As `stated`; a scheme that this kernel does not know is absent."""
        return stated(self.name, ifc.load(kernel.headers / "include", _layouts_cache(kernel)))

    def scheme(self, kernel: Kernel) -> str:
        """As `chosen`."""
        return chosen(self.firmware_odp(kernel))

    @contextlib.contextmanager
    def around(self, host: LocalHost, kernel: Kernel, folder: Path) -> Iterator[Card]:
        """One card process, from before the machine starts to after it has ended."""
        running = Card(self.name, host, kernel, folder)
        try:
            yield running
        finally:
            running.close()


def stated(model: str, layouts: ifc.Layouts) -> dict[str, dict[str, tuple[str, ...]]]:
    """The on-demand paging page of a model's firmware in the layout of a kernel: words by scheme and row."""
    found: dict[str, dict[str, list[str]]] = {}
    for path in Capabilities(card.model(model), layouts).current(ODP).nonzero():
        scheme, _, rest = path.rpartition(SCHEME_SUFFIX)
        row, _, word = (rest or path).rpartition(".")
        # Linux 6.1 has one scheme only, at the top of the page.
        rows = found.setdefault(scheme or ("memory" if path == "mem_page_fault" else "transport"), {})
        rows.setdefault(row.removesuffix("_odp_caps") or "general", []).append(word)
    return {
        scheme: {row: tuple(words) for row, words in rows.items()}
        for scheme, rows in sorted(found.items(), reverse=True)
    }


def chosen(found: Mapping[str, object]) -> str:
    """The scheme that a driver chooses of those that the firmware states to it: memory, if it knows it.

    Ref: Linux 6.12 drivers/net/ethernet/mellanox/mlx5/core/main.c, handle_hca_cap_odp
    """
    return MEMORY if MEMORY in found else next(iter(found), "")


def serve(model: str, socket: Path, headers: Path, control: Path | None, log: Path | None) -> int:
    """Be a card in this process, for a QEMU that anybody starts; returns the exit status."""
    argv = ["--model", model, "--socket", str(socket), "--headers", str(headers)]
    argv += ["--control", str(control or f"{socket}.control")]
    argv += ["--log", str(log)] if log else []
    return program.main(argv)


class Card:
    """A running card. Its socket, control socket, log and last words are files of `folder`.

    It starts while the machine is restored; whoever needs it first waits for it.
    """

    def __init__(self, model: str, host: LocalHost, kernel: Kernel, folder: Path) -> None:
        self.model = model
        self.host = host
        self.folder = folder
        self._words = folder / "card-errors"
        with self._words.open("wb") as words:
            argv = [sys.executable, "-m", "harness.connectx", "--model", model]
            argv += ["--socket", str(folder / "card"), "--control", str(folder / "card-control")]
            argv += ["--headers", str(kernel.headers / "include"), "--with-control"]
            argv += ["--layouts-cache", str(_layouts_cache(kernel))]
            argv += ["--log", str(folder / Emulated.log)]
            self.process = host.start(argv, stdout=subprocess.DEVNULL, stderr=words)
        self._control: ControlClient | None = None
        self._began = time.monotonic()
        self._early_kib = 0

    @property
    def control(self) -> ControlClient:
        """The card's control socket, once it answers; SetupError with the card's words if it ended instead."""
        until = time.monotonic() + START_DEADLINE_S
        while self._control is None:
            self.check()
            try:
                self._control = ControlClient(self.folder / "card-control")
            except SetupError:
                if time.monotonic() > until:
                    raise
                time.sleep(0.01)
        return self._control

    def plug(self, machine: Machine) -> None:
        """Hot-plug into the machine, which was restored standing still, and let it go on."""
        machine.arrive()
        self.control.ask("ping")
        # Where an instruction is a nanosecond, a write that does not wait would be answered at any time.
        posted = not machine.shape.counted
        machine.qmp.command("device_add", **qemu_options.device(self.folder / "card", PORT, posted))
        machine.go_on()

    def unplug(self, machine: Machine) -> None:
        """Take the card out of a running machine, once its guest agrees (a button takes it five seconds).

        It can be plugged again. SetupError if the guest does not let go.
        """
        machine.qmp.command("device_del", id=ID)
        until = time.monotonic() + UNPLUG_DEADLINE_S
        # QEMU hangs up some time after the device is gone, and aborts if it connects again before that.
        while self._listed(machine) or self.control.ask("ping")["attached"]:
            if time.monotonic() > until:
                raise SetupError("the guest does not let the card go", list(machine.console.tail(10)))
            time.sleep(0.05)

    @staticmethod
    def _listed(machine: Machine) -> bool:
        things = machine.qmp.command("qom-list", path="/machine/peripheral")
        return any(thing["name"] == ID for thing in things)

    def check(self) -> None:
        """Raise SetupError with the card's last words if its process ended (QEMU then aborts, after it)."""
        if self.process.poll() is not None:
            words = self._words.read_text(errors="replace").splitlines()[-20:]
            what = "did not start" if self._control is None else "died first"
            raise SetupError(f"the card {self.model} {what}, with status {self.process.returncode}", words)
        if not self._early_kib and time.monotonic() > self._began + EARLY_S:
            self._early_kib = resident_kib(self.process.pid)

    def arm(self, rules: Sequence[Rule]) -> None:
        """Give the card its rules, before the case starts."""
        if rules:
            self.control.ask("rules", rules=[codec.to_plain(rule) for rule in rules])

    def settle(self) -> None:
        """Wait until every page fault is resumed, as long as the driver goes on resuming some."""
        counters = self.control.ask("counters")["counters"]["faults"]
        last, moved = counters, time.monotonic()
        while counters["open"] or counters["invented_open"]:
            if counters != last:
                last, moved = counters, time.monotonic()
            elif time.monotonic() - moved > SETTLE_S:
                return
            time.sleep(SETTLE_POLL_S)
            counters = self.control.ask("counters")["counters"]["faults"]

    def report(self) -> DeviceReport:
        """Findings, counters and unknown commands so far."""
        found = self.control.ask("findings")["findings"]
        counters = self.control.ask("counters")["counters"]
        unknown = counters.pop("unknown", {})
        outcomes = self.control.ask("outcomes")["outcomes"]
        return DeviceReport(
            tuple(
                Finding(str(f.get("kind", "")), str(f.get("subject", "")), str(f.get("detail", "")))
                for f in found
            ),
            {**dict(_flat(counters)), **self._memory()},
            tuple(Unknown(name, int(seen["count"]), str(seen["stub"])) for name, seen in unknown.items()),
            tuple(codec.from_plain(Outcome, outcome) for outcome in outcomes),
        )

    def _memory(self) -> dict[str, int]:
        """What the card's process holds; how much that grew since its first minute, for those that live longer."""
        now = resident_kib(self.process.pid)
        grown = {"process.rss_growth_kib": now - self._early_kib} if self._early_kib else {}
        return {"process.rss_kib": now, **grown}

    def close(self) -> None:
        """End the card; it has a moment to end by itself, for its log to be whole."""
        if self._control is not None:
            self._control.close()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(END_DEADLINE_S)
        self.host.stop(self.process)


ID = str(qemu_options.device("")["id"])
PORT = "cardport"
"""Id of the root port that every machine has. Ref: machine/qemu.py"""


SCHEME_SUFFIX = "_page_fault_scheme_cap."
"""Ref: Linux 7.2 include/linux/mlx5/mlx5_ifc.h, mlx5_ifc_odp_cap_bits."""


def resident_kib(pid: int) -> int:
    """Memory of a process of ours that is its own; pages of the guest, which it maps shared, are not counted."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("RssAnon:"):
            return int(line.split()[1])
    return 0


def _layouts_cache(kernel: Kernel) -> Path:
    """Beside the headers that they were read from, so that both go together."""
    return kernel.folder / "layouts"


def _flat(table: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, int]]:
    """Numbers of nested counters, with dotted names."""
    for name, value in table.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{prefix}{name}.")
        elif isinstance(value, int):
            yield f"{prefix}{name}", int(value)
