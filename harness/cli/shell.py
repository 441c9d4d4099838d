"""A machine to look around in."""

from __future__ import annotations

import argparse
import sys
import termios

from harness.cli.common import (
    KERNEL,
    open_session,
    out,
)
from harness.values.case import Request

TEXT = "A prepared machine, interactive; `exit` ends it."
# Order numbers are just newer than a snapshot's own.
SHELL = 9


def options(parser: argparse.ArgumentParser) -> None:
    """Its options."""
    parser.add_argument("--kernel", default="newest", metavar="KERNEL", help=KERNEL)
    parser.add_argument("--device", default="soft-roce")


def act(arguments: argparse.Namespace) -> int:
    """The exit status of the shell, or of the script on stdin."""
    device, typed = arguments.device, sys.stdin.isatty()
    columns, lines = out.size
    size = {"COLUMNS": str(columns), "LINES": str(lines)}
    argv = () if typed else ("bash", "-c", sys.stdin.read())
    request = Request(SHELL, "shell" if typed else "exec", device, argv=argv, environment=size)
    terminal = termios.tcgetattr(sys.stdin) if typed else None
    with open_session(arguments) as session:
        try:
            kernel, snapshot = session.prepared(arguments.kernel, device, "real")
            reply = session.lend(kernel, snapshot, request, typed)
        finally:
            if terminal is not None:
                # QEMU makes the terminal raw and is killed, not asked to end.
                termios.tcsetattr(sys.stdin, termios.TCSADRAIN, terminal)
    sys.stdout.write(reply.output)
    return reply.exit_status
