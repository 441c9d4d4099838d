"""Block coverage: which instructions of the modules under test a case executes, from QEMU's log."""

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
"""Number of a request to a prepared machine: higher than those that prepared it, and any case's."""


class BlockCoverage:
    """Block coverage of some modules; nothing is logged when there are none."""

    def __init__(self, machines: MachineFactory, modules: tuple[str, ...]) -> None:
        self._machines, self._modules = machines, modules
        self._places: dict[str, ModuleLayout] = {}

    def places(self, snapshot: Snapshot) -> ModuleLayout:
        """Return the addresses of the modules in a machine that is restored from this snapshot."""
        if not self._modules:
            return ModuleLayout((), ())
        if snapshot.key not in self._places:
            request = Request(NUMBER, "exec", argv=(*ASK, *self._modules))
            answer = self._machines.run(snapshot, request, DEADLINE_S).output
            self._places[snapshot.key] = ModuleLayout.read(answer, self._modules)
        return self._places[snapshot.key]

    def options(self, snapshot: Snapshot, folder: Path) -> tuple[str, ...]:
        """Return QEMU's options for a machine of the snapshot in its folder."""
        return self.places(snapshot).options(folder / LOG)

    def read(self, snapshot: Snapshot, folder: Path) -> Offsets | None:
        """Return the executed instructions; None when nothing was logged."""
        log = folder / LOG
        if not log.is_file():
            return None
        return self.places(snapshot).executed(log.read_text(errors="replace"))
