"""Which instructions of the modules under test a case ran: asked of the machine, logged by QEMU, read afterwards."""

from __future__ import annotations

from pathlib import Path

from harness.machine.exec_log import (
    ASK,
    ModuleLayout,
    Offsets,
)
from harness.machine.snapshot import MachineFactory, Snapshot
from harness.values.case import Request

DEADLINE_S = 60.0
LOG = "blocks"
NUMBER = 1 << 16
"""Of an order that asks a prepared machine: newer than the one that prepared it, and any."""


class BlockCoverage:
    """For some modules; nothing is logged when there are none."""

    def __init__(self, studio: MachineFactory, modules: tuple[str, ...]) -> None:
        self._studio, self._modules = studio, modules
        self._places: dict[str, ModuleLayout] = {}

    def places(self, snapshot: Snapshot) -> ModuleLayout:
        """Where the modules are in a machine that goes on from this snapshot."""
        if not self._modules:
            return ModuleLayout((), ())
        if snapshot.key not in self._places:
            request = Request(NUMBER, "exec", argv=(*ASK, *self._modules))
            answer = self._studio.run(snapshot, request, DEADLINE_S).output
            self._places[snapshot.key] = ModuleLayout.read(answer, self._modules)
        return self._places[snapshot.key]

    def options(self, snapshot: Snapshot, folder: Path) -> tuple[str, ...]:
        """QEMU's options for a machine of the snapshot in its folder."""
        return self.places(snapshot).options(folder / LOG)

    def read(self, snapshot: Snapshot, folder: Path) -> Offsets | None:
        """What ran there; None when nothing was to be logged."""
        log = folder / LOG
        if not log.is_file():
            return None
        return self.places(snapshot).executed(log.read_text(errors="replace"))
