"""Where a case runs: today a VM restored from a snapshot, with its device."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Protocol

from harness.device import AttachedDevice
from harness.device.catalogue import DEVICES
from harness.errors import SetupError
from harness.kernel.packages import Kernel
from harness.machine.snapshot import Snapshot
from harness.machine.vm import Machine
from harness.plan.options import Logs
from harness.plan.session import Session
from harness.values.answer import Reply
from harness.values.case import Request
from harness.values.record import DeviceReport
from harness.values.rule import Rule

Look = Callable[[Machine], None]


class Target(Protocol):
    """A machine with an RDMA device that takes one request."""

    def arm(self, rules: Sequence[Rule]) -> None:
        """Give the device its injection rules, before the request."""
        ...

    def offer(self, request: Request, deadline_s: float) -> Reply:
        """Offer a request and wait for its reply.

        GuestError if the kernel failed, SetupError if the target or its device ended.
        """
        ...

    def report(self) -> DeviceReport:
        """Return what the device saw so far."""
        ...

    def diagnose(self) -> str:
        """Return the kernel's messages so far."""
        ...

    def close(self) -> Logs:
        """End it, take the device back and return the logs."""
        ...


class VmTarget:
    """A VM that is restored when a request is offered, with its device around it.

    Its files (console, sockets, log of the device) are in `folder`, which goes when the target is closed.
    """

    def __init__(
        self, session: Session, kernel: Kernel, snapshot: Snapshot, device: str, purpose: str = "case"
    ) -> None:
        self._session, self._snapshot = session, snapshot
        self.device = DEVICES[device]
        self._scratch, self._device = ExitStack(), ExitStack()
        self.folder: Path = self._scratch.enter_context(session.ledger.scratch_folder(purpose))
        try:
            around = self.device.around(session.host, kernel, self.folder)
            self.attached: AttachedDevice = self._device.enter_context(around)
        except BaseException:
            self._scratch.close()
            raise

    def __enter__(self) -> VmTarget:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def arm(self, rules: Sequence[Rule]) -> None:
        """Give the device its injection rules, before the request."""
        self.attached.arm(rules)

    def offer(
        self,
        request: Request,
        deadline_s: float,
        terminal: bool = False,
        look: Look = lambda machine: None,
    ) -> Reply:
        """Restore the machine, plug the device in, wait for the reply. A device that died first is the error.

        `look` is called with the machine while it is waited for, and once at the reply.
        """
        try:
            with self._session.machines.restore(
                self._snapshot,
                request,
                self.folder,
                plugged=self.device.plugged,
                terminal=terminal,
                extra=self._session.blocks.options(self._snapshot, self.folder),
            ) as machine:

                def tick() -> None:
                    self.attached.check()
                    look(machine)

                self.attached.plug(machine)
                reply = machine.wait(deadline_s, tick)
                self.attached.settle()
                return reply
        except SetupError:
            self.attached.check()
            raise

    def report(self) -> DeviceReport:
        """Return what the device saw so far."""
        return self.attached.report()

    def diagnose(self) -> str:
        """Return the console so far."""
        return _content(self.folder / "console").decode(errors="replace")

    def close(self) -> Logs:
        """Take the device back, remove the folder, and return the logs that were in it."""
        try:
            self._device.close()
        finally:
            logs = Logs(self.diagnose())
            if self.device.log:
                logs.card = _content(self.folder / self.device.log)
            logs.blocks = self._session.blocks.read(self._snapshot, self.folder)
            self._scratch.close()
        return logs


def lend(
    session: Session,
    kernel: Kernel,
    snapshot: Snapshot,
    request: Request,
    terminal: bool = False,
    look: Look = lambda machine: None,
) -> Reply:
    """Run one request in a machine with its device, without a deadline; perhaps on this terminal."""
    with VmTarget(session, kernel, snapshot, request.device, request.verb) as target:
        return target.offer(request, math.inf, terminal, look)


def _content(path: Path) -> bytes:
    return path.read_bytes() if path.is_file() else b""
