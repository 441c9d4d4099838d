"""A stored case once more, with a person at it: its machine stands still where the order is offered, for gdb to go on.

No deadline of ours ends it; the end of gdb does. When the case has answered, the machine is stopped once more.
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
from harness.plan.session import Session, case_order
from harness.store import digest
from harness.values.answer import Answer
from harness.values.case import Request

RECIPE = 2
ASK_DEADLINE_S = 120.0
POLL_S = 0.2
ENDED = "the case has answered and the machine is stopped; the end of gdb ends it"


@dataclass(frozen=True)
class Ended:
    """How it ended: the answer, if the case came to it before gdb's end; what the console said went wrong, if so."""

    answer: Answer | None
    problem: str


Attach = Callable[[Sequence[str], Machine], Callable[[], bool]]
"""Given gdb's command line, starts it or tells somebody; what it returns says whether gdb has ended."""


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
        with session.studio.restore(
            snapshot,
            case_order(planned, kernel),
            folder,
            plugged=device.plugged,
            held=True,
            extra=gdb.options(socket),
        ) as machine:
            presence.plug(machine)
            machine.arrive()
            return _watch(session, machine, presence, attach(gdb.command(commands), machine))


def at_stub(machine: Machine) -> bool:
    """Whether a debugger is connected now."""
    return gdb.connected(machine.qmp.command("query-chardev"))


def _watch(session: Session, machine: Machine, presence: AttachedDevice, ended: Callable[[], bool]) -> Ended:
    """Until gdb ends, which a machine that ended may still be of interest to."""
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
    """Those under test that are in the machine, with the best symbols that there are of each."""
    parts = {module: part for part in PARTS for module in part.every}
    request = Request(NUMBER, "exec", argv=(*exec_log.ASK, *parts))
    answer = session.studio.run(snapshot, request, ASK_DEADLINE_S).output
    found = []
    for name, sections in gdb.sections(answer).items():
        given = session.options.parcel / f"modules/{name}.ko" if session.options.parcel else None
        session.say(f"symbols of {name}")
        own = given if given is not None and given.is_file() else None
        known = symbols.debug(name, own, parts[name], kernel, session.archive)
        if known.why:
            session.say(f"{name}: names only, no lines: {known.why}")
        found.append(gdb.Loaded(name, known.file, known.sources, sections))
    return found


def _kernel_symbols(session: Session, kernel: Kernel, snapshot: Snapshot) -> Path:
    """A file of the kernel's own names: asked of the machine once, since it is never loaded elsewhere (nokaslr)."""

    def ask(into: Path) -> None:
        session.say(f"names of {kernel.release}")
        output = session.studio.run(
            snapshot, Request(NUMBER, "exec", argv=gdb.KALLSYMS), ASK_DEADLINE_S
        ).output
        text = gzip.decompress(base64.b64decode(output)).decode()
        (into / "vmlinux").write_bytes(symbols.of_kernel(text))

    key = f"{kernel.release}-{digest(RECIPE, kernel.folder.name)}"
    return session.store.built("symbols", key, ask) / "vmlinux"
