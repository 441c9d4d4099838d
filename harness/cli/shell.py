"""A shell in a prepared machine."""

from __future__ import annotations

import argparse
import sys
import termios

from harness import agent
from harness.cli.common import (
    KERNEL,
    open_session,
    out,
)
from harness.errors import SetupError, UsageError
from harness.machine.vm import Machine
from harness.plan.target import lend
from harness.values.case import Request

# Higher than the numbers of a snapshot's own requests.
SHELL = 9


def options(parser: argparse.ArgumentParser) -> None:
    """Add the options of the verb."""
    parser.add_argument("--kernel", default="newest", metavar="KERNEL", help=KERNEL)
    parser.add_argument("--device", default="soft-roce")


def act(arguments: argparse.Namespace) -> int:
    """Return the exit status of the shell, or of the script on stdin; print a script's output as it comes."""
    typed = sys.stdin.isatty()
    request = _request(arguments.device, typed)
    terminal = termios.tcgetattr(sys.stdin) if typed else None
    shown = 0

    def show(machine: Machine) -> None:
        nonlocal shown
        news = machine.printed(shown)
        shown += len(news)
        if news:
            sys.stdout.write("".join(news))
            sys.stdout.flush()

    with open_session(arguments) as session:
        try:
            kernel, snapshot = session.prepared(arguments.kernel, arguments.device, "real")
            reply = lend(session, kernel, snapshot, request, typed, show)
        finally:
            if terminal is not None:
                # QEMU makes the terminal raw and is killed, not shut down.
                termios.tcsetattr(sys.stdin, termios.TCSADRAIN, terminal)
    return agent.checked(reply).exit_status


def _request(device: str, typed: bool) -> Request:
    """Make the request: a shell, or the script on stdin; UsageError for a script that does not fit into one."""
    columns, lines = out.size
    size = {"COLUMNS": str(columns), "LINES": str(lines)}
    if typed:
        return Request(SHELL, "shell", device, environment=size)
    # As in a pipe to a shell any bytes are a script, except 0: it ends an argument.
    script = sys.stdin.buffer.read().decode("utf-8", "surrogateescape")
    if "\0" in script:
        raise UsageError("the script has a byte 0 in it", hint="encode binary data with base64")
    request = Request(SHELL, "exec", device, argv=("bash", "-c", script), environment=size)
    try:
        agent.encode_request(request)
    except SetupError as error:
        raise UsageError("the script is too long", [error.headline], "a shorter script") from error
    return request
