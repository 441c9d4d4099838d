"""Run a stored case under gdb: its machine is stopped where the request is offered, and gdb continues it.

The session lasts until gdb exits. When the case has answered, the machine is stopped once more.
"""

from __future__ import annotations

import base64
import gzip
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from harness.device import AttachedDevice
from harness.device.catalogue import DEVICES
from harness.kernel import symbols
from harness.kernel.packages import Kernel
from harness.kernel.subsystems import PARTS
from harness.machine import exec_log, gdb
from harness.machine.snapshot import Snapshot
from harness.machine.vm import Machine
from harness.plan.block_coverage import NUMBER
from harness.plan.plan import Planned
from harness.plan.runner import case_request
from harness.plan.session import Session
from harness.store import digest
from harness.values.answer import Answer
from harness.values.case import Request

RECIPE = 2
ASK_DEADLINE_S = 120.0
POLL_S = 0.2
ENDED = "the case has answered and the machine is stopped; the session lasts until gdb exits"


@dataclass(frozen=True)
class Ended:
    """The end of the session: the answer, if the case gave one before gdb exited, and the crash, if any."""

    answer: Answer | None
    problem: str


Attach = Callable[[Sequence[str], Machine], Callable[[], bool]]
"""Takes gdb's command line, starts or prints it, and returns a function that is true once gdb has exited."""


def debug(session: Session, planned: Planned, attach: Attach) -> Ended:
    """Run a case under gdb."""
    device = DEVICES[planned.case.device]
    kernel, snapshot = session.prepared(
        planned.kernel, planned.case.device, planned.clock, planned.case.module
    )
    modules = _modules(session, kernel, snapshot)
    names = _kernel_symbols(session, kernel, snapshot)
    with (
        session.ledger.scratch_folder("debug") as folder,
        device.around(session.host, kernel, folder) as presence,
    ):
        presence.arm(planned.case.rules)
        socket, commands = folder / "gdb", folder / "commands.gdb"
        commands.write_text(gdb.script(socket, names, modules))
        with session.machines.restore(
            snapshot,
            case_request(planned, kernel),
            folder,
            plugged=device.plugged,
            held=True,
            extra=gdb.options(socket),
        ) as machine:
            presence.plug(machine)
            machine.arrive()
            return _watch(session, machine, presence, attach(gdb.command(commands), machine))


def at_stub(machine: Machine) -> bool:
    """Return whether a debugger is connected now."""
    return gdb.connected(machine.qmp.command("query-chardev"))


def _watch(session: Session, machine: Machine, presence: AttachedDevice, ended: Callable[[], bool]) -> Ended:
    """Wait until gdb exits, even if the machine has ended before."""
    answer: Answer | None = None
    while not ended():
        time.sleep(POLL_S)
        if machine.process.poll() is not None:
            continue
        presence.check()
        reply = machine.reply() if answer is None else None
        if reply is not None:
            answer = reply.answer
            machine.qmp.command("stop")
            session.say(ENDED)
    crash = machine.diagnose()
    return Ended(answer, crash.line if crash is not None else "")


def _modules(session: Session, kernel: Kernel, snapshot: Snapshot) -> list[gdb.Loaded]:
    """Return the modules under test that the machine has loaded, with the best symbols of each."""
    parts = {module: part for part in PARTS for module in part.every}
    request = Request(NUMBER, "exec", argv=(*exec_log.ASK, *parts))
    answer = session.machines.run(snapshot, request, ASK_DEADLINE_S).output
    loaded = []
    for name, sections in gdb.sections(answer).items():
        replaced = session.options.payload / f"modules/{name}.ko" if session.options.payload else None
        session.say(f"symbols of {name}")
        own = replaced if replaced is not None and replaced.is_file() else None
        known = symbols.debug(name, own, parts[name], kernel, session.archive)
        if known.why:
            session.say(f"{name}: names only, no lines: {known.why}")
        loaded.append(gdb.Loaded(name, known.file, known.sources, sections))
    return loaded


def _kernel_symbols(session: Session, kernel: Kernel, snapshot: Snapshot) -> Path:
    """Return a file of the kernel's symbols: read from the machine once, since its addresses are fixed (nokaslr)."""

    def ask(into: Path) -> None:
        session.say(f"names of {kernel.release}")
        output = session.machines.run(
            snapshot, Request(NUMBER, "exec", argv=gdb.KALLSYMS), ASK_DEADLINE_S
        ).output
        text = gzip.decompress(base64.b64decode(output)).decode()
        (into / "vmlinux").write_bytes(symbols.of_kernel(text))

    key = f"{kernel.release}-{digest(RECIPE, kernel.folder.name)}"
    return session.store.built("symbols", key, ask) / "vmlinux"
