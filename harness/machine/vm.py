"""A running QEMU guest: request through fw_cfg, replies on a virtio port, kernel log on ttyS0."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

from harness import agent
from harness.errors import Crash, GuestError, Hang, HarnessError, KasanReport, SetupError
from harness.host import LocalHost
from harness.machine.console import Console, symptom_error
from harness.machine.qemu import Channels, MachineConfig, Qemu, command_line
from harness.values.answer import Reply, Trace
from harness.values.upstream import UpstreamTest

if TYPE_CHECKING:
    from harness.machine.qmp import Qmp

POLL_S = 0.002
# After one of these a reply rarely comes.
FATAL = (Crash, Hang, KasanReport)
AFTER_SYMPTOM_S = 2.0


class Machine:
    """One QEMU process with its files in `folder`; a context manager whose end kills it."""

    def __init__(self, host: LocalHost, qemu: Qemu, folder: Path, config: MachineConfig) -> None:
        self.host = host
        self.shape = config.shape
        self.folder = folder
        self.request = config.request
        self.held = config.held
        self._channels = Channels(folder)
        self._channels.request.write_bytes(agent.encode_request(config.request))
        self._channels.replies.touch()
        self._channels.console.touch()
        self.console = Console(self._channels.console)
        self._file = self._channels.replies.open("rb")
        self._unfinished = b""
        self._replies: list[Reply] = []
        self._printed: list[str] = []
        self._scanned = 0
        self._fatal: GuestError | None = None
        self._qmp: Qmp | None = None
        self._errors = folder / "qemu-errors"
        with self._errors.open("wb") as errors:
            inherit = None if config.terminal else subprocess.DEVNULL
            self.process = host.start(
                command_line(qemu, config, self._channels),
                stdin=inherit,
                stdout=inherit,
                stderr=errors,
                own_session=not config.terminal,
            )

    def __enter__(self) -> Machine:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def qmp(self) -> Qmp:
        """Monitor of the machine, connected at first use."""
        if self._qmp is None:
            # Imported here: asyncio and QEMU's library take 0.3 s, which every command would pay.
            from harness.machine.qmp import Qmp

            self._qmp = Qmp(self._channels.qmp, self._dead)
        return self._qmp

    def wait(self, deadline_s: float, tick: Callable[[], None] = lambda: None) -> Reply:
        """Wait for the reply to the request.

        The console speaks first: a crash there is raised as itself, a missing reply as a Hang with the guest's
        stack, the exit of QEMU as a SetupError with its last output. `tick` runs at each poll. The deadline begins
        again with each progress message before the reply.
        """
        until = time.monotonic() + deadline_s
        last_chance = float("inf")
        received = 0
        while True:
            # Checked first: replies written before the end are read too.
            ended = self.process.poll() is not None
            reply = self.reply()
            if reply is not None:
                tick()
                return reply
            if len(self._replies) > received:
                received = len(self._replies)
                until = time.monotonic() + deadline_s
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
        """Return the fatal error that the console shows, if any."""
        if self.console.mark() != self._scanned:
            self._scanned = self.console.mark()
            errors = map(symptom_error, self.console.since())
            self._fatal = next((error for error in errors if isinstance(error, FATAL)), None)
            if self._fatal is not None:
                # The cause is often in the lines before the kernel's own (a disk that did not mount).
                self._fatal.evidence = (*self.console.before(self._fatal.headline), *self._fatal.evidence)
        return self._fatal

    def go_on(self) -> None:
        """Let a paused machine run, unless a debugger holds it."""
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
        """Write the machine's state (not its RAM, which is the file it runs on); it is stopped afterwards.

        It is not stopped before: a machine saved while running continues by itself when it is restored.
        """
        self.qmp.migrate(f"file:{state}")

    def close(self) -> None:
        """Kill the machine."""
        if self._qmp is not None:
            self._qmp.close()
            self._qmp = None
        self.host.stop(self.process)
        self._file.close()

    def news(self) -> list[UpstreamTest]:
        """Return the results of upstream's tests that were reported so far."""
        return [reply.test for reply in self._replies if reply.test is not None]

    def traced(self) -> list[Trace]:
        """Return the traces of page faults that were reported so far."""
        return [reply.trace for reply in self._replies if reply.trace is not None]

    def printed(self, since: int = 0) -> list[str]:
        """Return the output of the request's command so far, in pieces, without the first `since`."""
        return self._printed[since:]

    def reply(self) -> Reply | None:
        """Return the reply to the request with all that was printed before as its output, None if it is not there."""
        data = self._file.read()
        if data:
            whole, newline, self._unfinished = (self._unfinished + data).rpartition(b"\n")
            text = (whole + newline).decode("utf-8", "replace")
            received = [r for r in agent.decode_replies(text) if r.number == self.request.number]
            self._printed += [r.printed for r in received if r.printed]
            self._replies += [r for r in received if not r.printed]
        last = next((reply for reply in self._replies[-1:] if reply.last), None)
        return last and replace(last, output="".join((*self._printed, last.output)))

    def _dead(self) -> HarnessError:
        self.process.wait()
        crash = self.diagnose()
        if crash is not None:
            return crash
        output = self._errors.read_text(errors="replace").splitlines()[-10:]
        evidence = [*output, *self.console.tail(10)]
        return SetupError(f"QEMU ended by itself with status {self.process.returncode}", evidence)

    def _hung(self, deadline_s: float) -> HarnessError:
        """Make the error of a missing reply: an NMI makes the guest panic with the stack of the running task."""
        before = self.console.tail(5)
        self.qmp.command("inject-nmi")
        until = time.monotonic() + 5
        while self.process.poll() is None and time.monotonic() < until:
            time.sleep(0.05)
        after = self.console.tail(60)
        return Hang(
            f"no reply to request {self.request.number} ({self.request.verb}) within {deadline_s:.0f} s",
            ["console before:", *before, "stack after an NMI:", *after],
            "the case's timeout, or the fault handling of this kernel",
        )
