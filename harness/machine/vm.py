"""A running VM: started with an order already in its hands, it answers on a file and says the rest on its console."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

from harness import agent
from harness.errors import Crash, GuestError, Hang, HarnessError, KasanReport, SetupError
from harness.host import LocalHost
from harness.machine.console import Console, symptom_error
from harness.machine.qemu import Qemu, Shape, Wiring, command_line
from harness.machine.qmp import Qmp
from harness.values.answer import Reply, Trace
from harness.values.case import Request
from harness.values.upstream import UpstreamTest

POLL_S = 0.002
# After one of these a machine is not worth waiting for.
FATAL = (Crash, Hang, KasanReport)
AFTER_SYMPTOM_S = 2.0


@dataclass(frozen=True)
class Disks:
    """What a machine is made of, all read-only."""

    vmlinuz: Path
    initrd: Path
    userland: Path
    kernel: Path
    parcel: Path


class Machine:
    """One QEMU process in a folder of its own; a context manager whose end kills it.

    `order` is what its agent finds. With `incoming` the machine is restored from that state file and `ram` is
    the memory saved with it, otherwise it boots. `paused` machines wait for `go_on` (for a device to be
    plugged). A `held` one stands still until somebody else, a debugger, lets it go on.
    """

    def __init__(
        self,
        host: LocalHost,
        qemu: Qemu,
        shape: Shape,
        disks: Disks,
        folder: Path,
        *,
        request: Request,
        ram: Path,
        incoming: Path | None = None,
        shared: bool = True,
        paused: bool = False,
        held: bool = False,
        terminal: bool = False,
        extra: tuple[str, ...] = (),
    ) -> None:
        self.host = host
        self.shape = shape
        self.folder = folder
        self.request = request
        self.held = held
        names = {name: folder / name for name in ("order", "replies", "console", "qmp")}
        names["order"].write_bytes(agent.encode_request(request))
        names["replies"].touch()
        names["console"].touch()
        wiring = Wiring(
            disks.vmlinuz,
            disks.initrd,
            disks.userland,
            disks.kernel,
            disks.parcel,
            ram,
            shared=shared,
            terminal=terminal,
            extra=extra,
            **names,
        )
        argv = command_line(qemu, shape, wiring)
        if incoming is not None:
            argv += ["-incoming", f"file:{incoming}"]
        if paused or held:
            argv += ["-S"]
        self.console = Console(names["console"])
        self._replies = names["replies"].open("rb")
        self._said = b""
        self._heard: list[Reply] = []
        self._scanned = 0
        self._fatal: GuestError | None = None
        self._qmp: Qmp | None = None
        self._errors = folder / "qemu-errors"
        with self._errors.open("wb") as errors:
            inherit = None if terminal else subprocess.DEVNULL
            self.process = host.start(
                argv,
                stdin=inherit,
                stdout=inherit,
                stderr=errors,
                own_session=not terminal,
            )

    def __enter__(self) -> Machine:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def qmp(self) -> Qmp:
        """The machine's monitor, connected at first use."""
        if self._qmp is None:
            self._qmp = Qmp(self.folder / "qmp", self._dead)
        return self._qmp

    def wait(self, deadline_s: float, tick: Callable[[], None] = lambda: None) -> Reply:
        """Wait for the reply to the order.

        The console speaks first: a crash there is raised as itself, a reply that does not come as a Hang with
        what the guest was doing, a QEMU that ends as a SetupError with its last words. `tick` runs at each look.
        The deadline is for the reply or for more `news` of it.
        """
        until = time.monotonic() + deadline_s
        last_chance = float("inf")
        heard = 0
        while True:
            reply = self.reply()
            if reply is not None:
                tick()
                return reply
            if len(self._heard) > heard:
                heard = len(self._heard)
                until = time.monotonic() + deadline_s
            ended = self.process.poll() is not None
            tick()
            crash = self.diagnose()
            now = time.monotonic()
            if crash is not None and (ended or now > last_chance):
                raise crash
            if crash is not None and last_chance == float("inf"):
                last_chance = now + AFTER_SYMPTOM_S
            if ended:
                raise self._dead()
            if now > until:
                raise self._hung(deadline_s)
            time.sleep(POLL_S)

    def diagnose(self) -> GuestError | None:
        """What the console says went fatally wrong, if anything."""
        if self.console.mark() != self._scanned:
            self._scanned = self.console.mark()
            errors = map(symptom_error, self.console.since())
            self._fatal = next((error for error in errors if isinstance(error, FATAL)), None)
            if self._fatal is not None:
                # What led there is often not the kernel's to say (a disk that did not mount).
                self._fatal.evidence = (*self.console.before(self._fatal.headline), *self._fatal.evidence)
        return self._fatal

    def go_on(self) -> None:
        """Let a paused machine run, if that is ours to do."""
        if not self.held:
            self.qmp.command("cont")

    def arrive(self, deadline_s: float = 30.0) -> None:
        """Wait until a restored machine's state is loaded: before, nothing can be plugged."""
        until = time.monotonic() + deadline_s
        while self.qmp.command("query-status")["status"] == "inmigrate":
            if time.monotonic() > until:
                raise SetupError("the restored machine does not come up", list(self.console.tail(5)))
            time.sleep(POLL_S)

    def add_disk(self, image: Path, serial: str) -> None:
        """Plug a read-only disk, which the guest finds by its serial number."""
        self.arrive()
        file = {"driver": "file", "filename": str(image), "locking": "off", "read-only": True}
        self.qmp.command(
            "blockdev-add", **{"node-name": serial, "driver": "raw", "read-only": True, "file": file}
        )
        device = {"driver": "virtio-blk-pci", "drive": serial, "serial": serial, "ioeventfd": False}
        self.qmp.command("device_add", bus="diskport", **device)

    def save(self, state: Path) -> None:
        """Write the machine's state (not its RAM, which is the file it runs on); it stands still afterwards.

        It is not stopped first: a machine saved while running goes on by itself when it is restored.
        """
        self.qmp.migrate(f"file:{state}")

    def close(self) -> None:
        """Kill the machine."""
        if self._qmp is not None:
            self._qmp.close()
            self._qmp = None
        self.host.stop(self.process)
        self._replies.close()

    def news(self) -> list[UpstreamTest]:
        """What was told of upstream's tests before the reply, so far."""
        return [reply.test for reply in self._heard if reply.test is not None]

    def traced(self) -> list[Trace]:
        """What was told of page faults before the reply, so far."""
        return [reply.trace for reply in self._heard if reply.trace is not None]

    def reply(self) -> Reply | None:
        """The reply to the order, if it is there."""
        data = self._replies.read()
        if data:
            whole, newline, self._said = (self._said + data).rpartition(b"\n")
            text = (whole + newline).decode("utf-8", "replace")
            self._heard += [r for r in agent.decode_replies(text) if r.number == self.request.number]
        return next((reply for reply in self._heard[-1:] if reply.last), None)

    def _dead(self) -> HarnessError:
        self.process.wait()
        crash = self.diagnose()
        if crash is not None:
            return crash
        said = self._errors.read_text(errors="replace").splitlines()[-10:]
        evidence = [*said, *self.console.tail(10)]
        return SetupError(f"QEMU ended by itself with status {self.process.returncode}", evidence)

    def _hung(self, deadline_s: float) -> HarnessError:
        """Make the guest say where it is: an NMI panics it with the stack of what runs."""
        before = self.console.tail(5)
        self.qmp.command("inject-nmi")
        until = time.monotonic() + 5
        while self.process.poll() is None and time.monotonic() < until:
            time.sleep(0.05)
        seen = self.console.tail(60)
        return Hang(
            f"no answer to order {self.request.number} ({self.request.verb}) within {deadline_s:.0f} s",
            ["console before:", *before, "stack after an NMI:", *seen],
            "the case's timeout, or the fault handling of this kernel",
        )
