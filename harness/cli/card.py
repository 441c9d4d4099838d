"""`odp-harness card`: serve an emulated card without a machine."""

from __future__ import annotations

import argparse
from pathlib import Path

from harness.cli.common import (
    KERNEL,
    open_session,
)
from harness.device import card_process
from harness.device.traits import CARDS as MODELS


def options(parser: argparse.ArgumentParser) -> None:
    """Add the verb's options."""
    parser.add_argument("--model", default="connectx-5", help=f"one of {', '.join(MODELS)}")
    parser.add_argument("--socket", type=Path, required=True, help="where QEMU connects")
    parser.add_argument("--control", type=Path, help="rules in, findings out (default: SOCKET.control)")
    parser.add_argument("--headers", type=Path, help="include/ of the guest's kernel (default: of --kernel)")
    parser.add_argument("--kernel", default="newest", metavar="KERNEL", help=KERNEL)
    parser.add_argument("--log", type=Path, help="write the conversation log there (.gz: compressed)")


def act(arguments: argparse.Namespace) -> int:
    """Serve until QEMU and the control clients have disconnected, or a signal comes."""
    headers = arguments.headers
    if headers is None:
        with open_session(arguments) as session:
            headers = session.kernel(arguments.kernel).headers / "include"
    return card_process.serve(arguments.model, arguments.socket, headers, arguments.control, arguments.log)
