"""Trace page faults of other programs: on this machine, or in a machine of ours around a command."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable
from pathlib import Path

from harness import agent
from harness.errors import SetupError
from harness.host import LocalHost
from harness.machine.vm import Machine
from harness.plan.session import CASE, Session
from harness.plan.target import lend
from harness.values import codec
from harness.values.answer import Reply, Trace
from harness.values.case import Request, Watch

POLL_S = 0.05
Show = Callable[[Trace], None]


def here(host: LocalHost, watch: Watch, argv: tuple[str, ...], show: Show) -> Reply:
    """Trace this machine with its own Python and bcc; SetupError names what is missing for that.

    Ctrl-C ends the tracing, not the caller: the last call of `show` has the summary.
    """
    request = Request(CASE, "trace", argv=argv, watch=watch)
    with host.ledger.scratch_folder("trace") as folder:
        (folder / "request").write_text(codec.dumps(request))
        for name, content in agent.bundle().items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes(content)
        output, errors = folder / "output", folder / "errors"
        with output.open("wb") as out, errors.open("wb") as err:
            child = host.start(
                ["python3", "-m", "harness.guest", "--request", str(folder / "request")],
                stdout=out,
                stderr=err,
                env={
                    "PYTHONPATH": str(folder),
                    "PATH": "/usr/sbin:/usr/bin:/sbin:/bin",
                    "PYTHONDONTWRITEBYTECODE": "1",
                },
            )
        try:
            reply = _followed(child, output, show)
        finally:
            host.stop(child)
        if reply is None:
            raise SetupError(
                "the tracer ended without a reply", errors.read_text("utf-8", "replace").splitlines()[-10:]
            )
    if not reply.ok:
        problem = reply.problem.removeprefix("Unsupported: ")
        shown = reply.output.splitlines()[-10:] if problem == reply.problem else []
        raise SetupError(f"cannot trace here: {problem}", shown)
    return reply


def in_machine(
    session: Session, series: str, watch: Watch, device: str, argv: tuple[str, ...], show: Show
) -> Reply:
    """Trace a machine of ours with a device while a command runs in it; $RDMA_DEVICE names the device there."""
    kernel, snapshot = session.prepared(series, device, "real")
    request = Request(CASE, "trace", device, argv=argv, watch=watch)
    shown = 0

    def look(machine: Machine) -> None:
        nonlocal shown
        news = machine.traced()[shown:]
        for trace in news:
            show(trace)
        shown += len(news)

    reply = lend(session, kernel, snapshot, request, look=look)
    if not reply.ok:
        raise SetupError(f"cannot trace in the machine: {reply.problem}", reply.output.splitlines()[-10:])
    return reply


def _followed(child: subprocess.Popen[bytes], output: Path, show: Show) -> Reply | None:
    """Read the tracer's output until its reply; an interrupt is passed on to it, once."""
    with output.open("rb") as lines:
        rest, ended, interrupted = b"", False, False
        while True:
            try:
                ended = child.poll() is not None
                data = rest + lines.read()
                whole, newline, rest = data.rpartition(b"\n")
                for reply in agent.decode_replies((whole + newline).decode("utf-8", "replace")):
                    if reply.trace is not None:
                        show(reply.trace)
                    if reply.last:
                        return reply
                if ended:
                    return None
                time.sleep(POLL_S)
            except KeyboardInterrupt:
                if interrupted:
                    raise
                interrupted = True
                child.terminate()
