"""The process of an emulated card: start it, plug it into a machine, collect its report, end it."""

from __future__ import annotations

import contextlib
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from harness.connectx import __main__ as program
from harness.connectx.transport import qemu_options
from harness.connectx.transport.control import ControlClient
from harness.errors import SetupError
from harness.host import LocalHost
from harness.kernel.packages import Kernel
from harness.machine.vm import Machine
from harness.values import codec
from harness.values.record import DeviceReport, Finding, Unknown
from harness.values.rule import Outcome, Rule

LOG = "card-log.gz"
START_DEADLINE_S = 20.0
END_DEADLINE_S = 5.0
UNPLUG_DEADLINE_S = 30.0
SETTLE_S = 0.5
SETTLE_POLL_S = 0.02
EARLY_S = 60.0
"""When the card's memory is first measured: by then it has done some of all the work of a soak."""


ID = str(qemu_options.device("")["id"])
PORT = "cardport"
"""Id of the root port that every machine has. Ref: machine/qemu.py"""


class Card:
    """A running card. Its socket, control socket, log and error output are files of `folder`.

    It starts while the machine is restored; the first use waits for it.
    """

    def __init__(self, model: str, host: LocalHost, kernel: Kernel, folder: Path) -> None:
        self.model = model
        self.host = host
        self.folder = folder
        self._errors = folder / "card-errors"
        with self._errors.open("wb") as errors:
            argv = [sys.executable, "-m", "harness.connectx", "--model", model]
            argv += ["--socket", str(folder / "card"), "--control", str(folder / "card-control")]
            argv += ["--headers", str(kernel.headers / "include"), "--with-control"]
            argv += ["--layouts-cache", str(layouts_cache(kernel))]
            argv += ["--log", str(folder / LOG)]
            self.process = host.start(argv, stdout=subprocess.DEVNULL, stderr=errors)
        self._control: ControlClient | None = None
        self._began = time.monotonic()
        self._early_kib = 0

    @property
    def control(self) -> ControlClient:
        """The card's control socket, once it answers; SetupError with the card's errors if it ended instead."""
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
        """Hot-plug into the machine, which was restored but does not run yet, and start it."""
        machine.arrive()
        self.control.ask("ping")
        # Where an instruction is a nanosecond, a write that does not wait would be answered at any time.
        posted = not machine.shape.counted
        machine.qmp.command("device_add", **qemu_options.device(self.folder / "card", PORT, posted))
        machine.go_on()

    def unplug(self, machine: Machine) -> None:
        """Unplug the card from a running machine, once its guest agrees (the attention button takes five seconds).

        It can be plugged again. SetupError if the guest does not release it.
        """
        machine.qmp.command("device_del", id=ID)
        until = time.monotonic() + UNPLUG_DEADLINE_S
        # QEMU hangs up some time after the device is gone, and aborts if it connects again before that.
        while self._listed(machine) or self.control.ask("ping")["attached"]:
            if time.monotonic() > until:
                raise SetupError("the guest does not release the card", list(machine.console.tail(10)))
            time.sleep(0.05)

    @staticmethod
    def _listed(machine: Machine) -> bool:
        devices = machine.qmp.command("qom-list", path="/machine/peripheral")
        return any(device["name"] == ID for device in devices)

    def check(self) -> None:
        """Raise SetupError with the card's last errors if its process ended (QEMU then aborts, after it)."""
        if self.process.poll() is not None:
            errors = self._errors.read_text(errors="replace").splitlines()[-20:]
            end = "did not start" if self._control is None else "died first"
            raise SetupError(f"the card {self.model} {end}, with status {self.process.returncode}", errors)
        if not self._early_kib and time.monotonic() > self._began + EARLY_S:
            self._early_kib = resident_kib(self.process.pid)

    def arm(self, rules: Sequence[Rule]) -> None:
        """Give the card its rules, before the case starts."""
        if rules:
            self.control.ask("rules", rules=[codec.to_plain(rule) for rule in rules])

    def settle(self) -> None:
        """Wait until every page fault is resumed, as long as the driver keeps resuming some."""
        counters = self.control.ask("counters")["counters"]["faults"]
        last, moved = counters, time.monotonic()
        while counters["open"] or counters["injected_open"]:
            if counters != last:
                last, moved = counters, time.monotonic()
            elif time.monotonic() - moved > SETTLE_S:
                return
            time.sleep(SETTLE_POLL_S)
            counters = self.control.ask("counters")["counters"]["faults"]

    def report(self) -> DeviceReport:
        """Return findings, counters and unknown commands so far."""
        findings = self.control.ask("findings")["findings"]
        counters = self.control.ask("counters")["counters"]
        unknown = counters.pop("unknown", {})
        outcomes = self.control.ask("outcomes")["outcomes"]
        return DeviceReport(
            tuple(
                Finding(str(f.get("kind", "")), str(f.get("subject", "")), str(f.get("detail", "")))
                for f in findings
            ),
            {**dict(_flat(counters)), **self._memory()},
            tuple(Unknown(name, int(seen["count"]), str(seen["stub"])) for name, seen in unknown.items()),
            tuple(codec.from_plain(Outcome, outcome) for outcome in outcomes),
        )

    def _memory(self) -> dict[str, int]:
        """Measure the memory of the card's process, and its growth since the first minute if it lives longer."""
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


def serve(model: str, socket: Path, headers: Path, control: Path | None, log: Path | None) -> int:
    """Run a card in this process, for a QEMU that somebody else starts; return the exit status."""
    argv = ["--model", model, "--socket", str(socket), "--headers", str(headers)]
    argv += ["--control", str(control or f"{socket}.control")]
    argv += ["--log", str(log)] if log else []
    return program.main(argv)


def resident_kib(pid: int) -> int:
    """Return the private memory of a process; pages of the guest, which it maps shared, are not counted."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("RssAnon:"):
            return int(line.split()[1])
    return 0


def layouts_cache(kernel: Kernel) -> Path:
    """Return the folder of parsed layouts, beside the headers that they come from: both are evicted together."""
    return kernel.folder / "layouts"


def _flat(table: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, int]]:
    """Yield the numbers of nested counters, with dotted names."""
    for name, value in table.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{prefix}{name}.")
        elif isinstance(value, int):
            yield f"{prefix}{name}", int(value)
