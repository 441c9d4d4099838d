"""Serve one emulated card: a vfio-user socket and a control socket, until a signal, `quit` or its parent's end."""

from __future__ import annotations

import argparse
import os
import shlex
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from harness.connectx.card import CardModel, model
from harness.connectx.firmware import Card
from harness.connectx.service import Service
from harness.connectx.transport.pci import PciIdentity
from harness.connectx.transport.qemu_options import qemu_options
from harness.errors import HarnessError, UsageError
from harness.wire import ifc


def identity(chosen: CardModel) -> PciIdentity:
    """Return the PCI identity of a model."""
    return PciIdentity(
        vendor=chosen.vendor_id,
        device=chosen.device_id,
        revision=chosen.revision,
        class_code=chosen.class_code,
        subsystem_vendor=chosen.subsystem_vendor_id,
        subsystem=chosen.subsystem_id,
        vectors=chosen.msix_vectors,
        registers_size=chosen.bar0_size,
    )


def _arguments(words: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m harness.connectx", description=__doc__)
    parser.add_argument("--model", default="connectx-5", help="connectx-5, connectx-7, connect-ib")
    parser.add_argument("--socket", type=Path, required=True, help="where QEMU connects")
    parser.add_argument("--control", type=Path, required=True, help="where rules come in and findings go out")
    parser.add_argument("--headers", type=Path, required=True, help="folder of the guest kernel's headers")
    parser.add_argument("--layouts-cache", type=Path, help="folder that caches the parsed headers")
    parser.add_argument("--log", type=Path, help="write the conversation there (.gz: compressed)")
    parser.add_argument("--qemu-msix", action="store_true", help="let QEMU keep the MSI-X table (no unplug)")
    parser.add_argument("--parent", type=int, help="end when this process ends")
    parser.add_argument("--with-control", action="store_true", help="end when the last control client leaves")
    return parser.parse_args(words)


def _process(parent: int) -> int:
    """Return a descriptor that becomes readable when process `parent` ends.

    Not prctl(PR_SET_PDEATHSIG): that signal comes when the *thread* that started us ends.
    """
    try:
        return os.pidfd_open(parent)
    except OSError as problem:
        raise UsageError(f"no process {parent}", [str(problem)]) from problem


def _signalled(number: int, _frame: object) -> NoReturn:
    signal.signal(number, signal.SIG_IGN)
    raise SystemExit(f"signal {signal.Signals(number).name}")


def main(words: Sequence[str] | None = None) -> int:
    """Serve one card; return the exit status: 0, or that of the error that is printed."""
    options = _arguments(words)
    try:
        parent = None if options.parent is None else _process(options.parent)
        chosen = model(options.model)
        layouts = ifc.load(options.headers, options.layouts_cache)
        service = Service(
            lambda memory, interrupts, note: Card(options.model, layouts, memory, interrupts, note),
            identity(chosen),
            options.socket,
            options.control,
            options.log,
            own_msix=not options.qemu_msix,
        )
    except HarnessError as problem:
        print(problem.render(), file=sys.stderr)
        return problem.exit_status
    if parent is not None:
        service.loop.add(parent, lambda _events: service.loop.stop(f"process {options.parent} ended"))
    if options.with_control:
        service.control.on_last_gone = lambda: service.loop.stop("the last control client left")
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, _signalled)
    print(f"card: {chosen.title}, process {os.getpid()}; QEMU options:", file=sys.stderr)
    print(shlex.join(qemu_options(options.socket)), flush=True)
    service.run()
    return 0


if __name__ == "__main__":
    sys.exit(main())
