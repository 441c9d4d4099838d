"""Trace page faults, stage by stage, live."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from rich.console import Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from harness.cli.common import (
    JSON,
    KERNEL,
    err,
    open_session,
    out,
)
from harness.device.catalogue import find
from harness.errors import UsageError
from harness.plan.session import CASE
from harness.plan.tracing import here, in_machine
from harness.results.exports import EXPORTS, export_of
from harness.results.latency import cost, of_faults, rows, seen_together
from harness.results.record import write_atomically
from harness.results.text import duration, one_line
from harness.values import codec
from harness.values.answer import Reply, Trace
from harness.values.case import Watch

DRIVERS = {"mlx5": "mlx5", "rxe": "rxe", "rdma_rxe": "rxe", "soft": "rxe"}


def options(parser: argparse.ArgumentParser) -> None:
    """Add the options of the verb."""
    parser.add_argument(
        "--vm", metavar="MODEL", help="in a machine with this device, as connectx-5 or soft-roce"
    )
    parser.add_argument("--kernel", default="newest", metavar="KERNEL", help=f"{KERNEL}; of that machine")
    parser.add_argument(
        "--device", default="", help="if both drivers are loaded: mlx5, rxe, or a device as rdma(8) calls it"
    )
    parser.add_argument("--pid", type=int, default=0, help="only faults on this process's memory")
    parser.add_argument("--min-us", type=float, default=0, metavar="N", help="only faults that took so long")
    parser.add_argument("--for", dest="seconds", type=float, default=0, metavar="SECONDS", help="then end")
    parser.add_argument(
        "--interval", type=float, default=1.0, metavar="SECONDS", help="of the live table (1)"
    )
    ends = ", ".join(EXPORTS)
    parser.add_argument(
        "--export",
        type=Path,
        action="append",
        default=[],
        metavar="FILE",
        help=f"the faults; by its end: {ends}",
    )
    parser.add_argument("--json", action="store_true", help=JSON)
    parser.add_argument("command", nargs="*", metavar="COMMAND", help="what to run meanwhile (after --)")


def act(arguments: argparse.Namespace) -> int:
    """Return the exit status of the command; summary and exports are made however it ended."""
    exports = [(path, export_of(path)) for path in arguments.export]
    watch = Watch(arguments.seconds, arguments.interval, driver_of(arguments.device))
    if arguments.vm and not (arguments.command or arguments.seconds):
        raise UsageError(
            "a machine of ours is idle by itself", hint="odp-harness trace --vm MODEL -- COMMAND"
        )
    seen = Trace()
    reply = Reply(CASE, True)
    command = tuple(arguments.command)

    def show(news: Trace) -> None:
        nonlocal seen
        seen = seen_together(seen, news)
        if err.is_terminal:
            live.update(_picture(_chosen(seen, arguments)), refresh=True)

    try:
        with (
            open_session(arguments) as session,
            Live(console=err, auto_refresh=False, transient=True) as live,
        ):
            if arguments.vm:
                find(arguments.vm)
                reply = in_machine(session, arguments.kernel, watch, arguments.vm, command, show)
            else:
                reply = here(session.host, watch, command, show)
    finally:
        # Also after Ctrl-C or the end of the machine.
        if seen.whole:
            chosen = _chosen(seen, arguments)
            for path, export in exports:
                write_atomically(path, export({path.name.partition(".")[0]: chosen}))
            _print(arguments, reply, chosen)
    return reply.exit_status


def _print(arguments: argparse.Namespace, reply: Reply, trace: Trace) -> None:
    if arguments.json:
        plain = {"trace": codec.to_plain(trace), "probes": reply.facts, "exit_status": reply.exit_status}
        sys.stdout.write(json.dumps({**plain, "stages": [vars(row) for row in rows(trace)]}) + "\n")
        return
    if reply.output:
        out.print(Text(reply.output.rstrip()))
        out.print()
    out.print(_picture(trace))
    absent = [name for name, symbol in reply.facts.items() if symbol == "missing"]
    if absent:
        out.print(f"without a probe on this kernel: {', '.join(absent)}")
    for path in arguments.export:
        out.print(f"wrote {path}", markup=False)


def _chosen(trace: Trace, arguments: argparse.Namespace) -> Trace:
    return of_faults(trace, arguments.pid, int(1000 * arguments.min_us))


def _picture(trace: Trace) -> RenderableType:
    table = Table(box=None, pad_edge=False)
    for name in ("stage", "calls", "50 %", "90 %", "99 %", "maximum", "share", "shape"):
        table.add_column(name, justify="left" if name in ("stage", "shape") else "right", no_wrap=True)
    for row in rows(trace):
        quantiles = (row.p50_ns, row.p90_ns, row.p99_ns, row.maximum_ns)
        share = "" if row.share is None else f"{100 * row.share:.0f} %"
        stage = Text(one_line(row.stage), style="bold" if row.stage == trace.whole else "")
        table.add_row(stage, str(row.samples), *(duration(ns) for ns in quantiles), share, row.sparkline)
    lines = [f"{trace.counts.get(trace.whole, 0)} faults ({trace.whole or 'none seen'})"]
    if trace.lost:
        lines.append(f"{trace.lost} without a record: the histograms have them, shares and exports do not")
    if trace.missed:
        lines.append(f"{trace.missed} probe hits were missed: these counts prove nothing")
    paid = cost(trace)
    return Group(table, Text("; ".join(lines + ([paid] if paid else []))))


def driver_of(device: str, sysfs: Path = Path("/sys/class/infiniband")) -> str:
    """Return the driver whose stages to trace, "" for whichever is loaded.

    `device` is a name of a driver, or a device of this machine, found in sysfs: udev may call an mlx5_0 rocep1s0.
    """
    if not device:
        return ""
    link = sysfs / device / "device/driver"
    name = link.resolve().name if link.exists() else device
    for start, driver in DRIVERS.items():
        if name.startswith(start):
            return driver
    raise UsageError(f"no driver known for {device}", hint="mlx5, rxe, or a device that `rdma link` lists")
