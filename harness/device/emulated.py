"""The emulated ConnectX: starts its process, plugs it into a restored machine, collects what it found."""

from __future__ import annotations

import contextlib
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from harness.connectx import options
from harness.connectx.control import ControlClient
from harness.errors import SetupError
from harness.host import LocalHost
from harness.kernel.packages import Kernel
from harness.machine.vm import Machine
from harness.values.case import Order
from harness.values.record import Finding, Unknown, Witness

START_DEADLINE_S = 20.0
INCOMING_DEADLINE_S = 30.0
END_DEADLINE_S = 5.0


class Emulated:
    """A card of one model; real time is its default, since its interrupts come at any instant."""

    clock = "real"
    plugged = True
    log = "card-log.gz"

    def __init__(self, model: str) -> None:
        self.name = model

    def prepare(self, number: int) -> Order:
        """Load the drivers; there is no card yet."""
        return Order(number, "prepare", self.name)

    @contextlib.contextmanager
    def around(self, host: LocalHost, kernel: Kernel, folder: Path) -> Iterator[Card]:
        """One card process, from before the machine starts to after it has ended."""
        card = Card(self.name, host, kernel, folder)
        try:
            card.open()
            yield card
        finally:
            card.close()


class Card:
    """A running card. Its socket, control socket, log and last words are files of `folder`."""

    def __init__(self, model: str, host: LocalHost, kernel: Kernel, folder: Path) -> None:
        self.model = model
        self.host = host
        self.folder = folder
        self._words = folder / "card-errors"
        with self._words.open("wb") as words:
            argv = [sys.executable, "-m", "harness.connectx", "--model", model]
            argv += ["--socket", str(folder / "card"), "--control", str(folder / "card-control")]
            argv += ["--headers", str(kernel.headers / "include"), "--with-control"]
            argv += ["--layouts-cache", str(kernel.folder / "layouts")]
            argv += ["--log", str(folder / Emulated.log)]
            self.process = host.start(argv, stdout=subprocess.DEVNULL, stderr=words)
        self.control: ControlClient | None = None

    def open(self) -> None:
        """Wait until the card answers."""
        until = time.monotonic() + START_DEADLINE_S
        while self.control is None:
            self.check()
            try:
                self.control = ControlClient(self.folder / "card-control")
            except SetupError:
                if time.monotonic() > until:
                    raise
                time.sleep(0.01)

    def plug(self, machine: Machine) -> None:
        """Hot-plug into the machine, which was restored standing still, and let it go on."""
        until = time.monotonic() + INCOMING_DEADLINE_S
        while machine.qmp.command("query-status")["status"] == "inmigrate":
            if time.monotonic() > until:
                raise SetupError("the restored machine does not come up", list(machine.console.tail(5)))
            time.sleep(0.002)
        machine.qmp.command("device_add", **options.device(self.folder / "card", bus=PORT))
        machine.go_on()

    def check(self) -> None:
        """Raise SetupError with the card's last words if its process ended (QEMU then aborts, after it)."""
        if self.process.poll() is not None:
            words = self._words.read_text(errors="replace").splitlines()[-20:]
            raise SetupError(
                f"the card {self.model} died first, with status {self.process.returncode}", words
            )

    def arm(self, rules: list[dict[str, Any]]) -> None:
        """Give the card its rules, before the case starts."""
        self._client.ask("rules", rules=rules)

    def report(self) -> Witness:
        """Findings, counters and unknown commands so far."""
        found = self._client.ask("findings")["findings"]
        counters = self._client.ask("counters")["counters"]
        unknown = counters.pop("unknown", {})
        return Witness(
            tuple(
                Finding(str(f.get("kind", "")), str(f.get("subject", "")), str(f.get("detail", "")))
                for f in found
            ),
            dict(_flat(counters)),
            tuple(Unknown(name, int(seen["count"]), str(seen["stub"])) for name, seen in unknown.items()),
        )

    @property
    def _client(self) -> ControlClient:
        if self.control is None:
            raise SetupError(f"the card {self.model} is not open")
        return self.control

    def close(self) -> None:
        """End the card; it has a moment to end by itself, for its log to be whole."""
        if self.control is not None:
            self.control.close()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(END_DEADLINE_S)
        self.host.stop(self.process)


PORT = "cardport"
"""Id of the root port that every machine has. Ref: machine/qemu.py"""


def _flat(table: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, int]]:
    """Numbers of nested counters, with dotted names."""
    for name, value in table.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{prefix}{name}.")
        elif isinstance(value, int):
            yield f"{prefix}{name}", int(value)
