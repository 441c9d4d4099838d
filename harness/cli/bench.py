"""Measure claims of speed."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Callable
from pathlib import Path

from rich.table import Table

from harness.bench import boot, card, exact, faults, kmod, regress, repeats, trace
from harness.bench.measurement import Measurement, Stopped
from harness.campaign.question import RegressRequest
from harness.cli.common import (
    JSON,
    KERNEL,
    open_session,
    out,
)
from harness.device.catalogue import find
from harness.errors import UsageError
from harness.kernel.subsystems import (
    MLX5,
    RXE,
)
from harness.plan.checkout import find_folder
from harness.plan.plan import load
from harness.plan.session import Session

CARD = "connectx-5"
MIN_ROUNDS = {"faults": 2}
"""The others take 1: `faults` compares a long run with a short one."""


def options(parser: argparse.ArgumentParser) -> None:
    """Add the benchmark and its parameters."""
    parser.add_argument("name", choices=tuple(BENCHES))
    parser.add_argument("--json", action="store_true", help=JSON)
    parser.add_argument(
        "--rounds",
        type=int,
        help="how often (boot: 7, card: 5, exact: 10, with a card 20, faults: 400, kmod: 200, regress: 50)",
    )
    parser.add_argument("--kernel", default="newest", metavar="KERNEL", help=KERNEL)
    model = "for card, faults, kmod, exact and regress: the model (the last two: soft-roce)"
    parser.add_argument("--device", help=model)
    plan = "for exact: the plan file whose first case is run (default: testplans/odp-write.toml)"
    parser.add_argument("--plan", type=Path, help=plan)


def act(arguments: argparse.Namespace) -> int:
    """Print one measurement."""
    limit = MIN_ROUNDS.get(arguments.name, 1)
    if arguments.rounds is not None and arguments.rounds < limit:
        raise UsageError(f"--rounds {arguments.rounds}: bench {arguments.name} takes {limit} or more")
    try:
        with open_session(arguments) as session:
            result = BENCHES[arguments.name](session, arguments)
    except Stopped as stopped:
        _show(arguments, stopped.measurement)
        raise
    _show(arguments, result)
    return 0


def _show(arguments: argparse.Namespace, measurement: Measurement) -> None:
    if arguments.json:
        sys.stdout.write(json.dumps(measurement.plain()) + "\n")
        sys.stdout.flush()
        return
    table = Table("metric", "value", title=f"bench {arguments.name}")
    for name, value in measurement.plain().items():
        table.add_row(name, str(value))
    out.print(table)


def _exact(session: Session, arguments: argparse.Namespace) -> Measurement:
    """Restore a case on a card many times in exact time; run one on soft-RoCE in both clocks."""
    path = arguments.plan or find_folder("testplans", None) / "odp-write.toml"
    device = arguments.device or "soft-roce"
    planned = next(load(path).cases((arguments.kernel,), devices=(device,)), None)
    if planned is None:
        raise UsageError(f"{path} has no case for {device}")
    if find(device).plugged:
        return repeats.measure(session, planned, arguments.rounds or 20)
    return exact.measure(session, planned, arguments.rounds or 10)


def _regress(session: Session, arguments: argparse.Namespace) -> Measurement:
    """Test `--rounds` no-op changes as `regress` does, each with all seeds of an RDMA write that faults."""
    device = find(arguments.device or "soft-roce").name
    part = RXE if device == RXE.devices[0] else MLX5
    plans = [find_folder("testplans", None) / "odp-write.toml"]
    with session.ledger.scratch_folder("bench") as results:
        request = RegressRequest(
            "noop", arguments.kernel, plans, results, jobs=os.cpu_count() or 1, expression=device
        )
        return regress.measure(session, request, part, arguments.rounds or 50)


BENCHES: dict[str, Callable[[Session, argparse.Namespace], Measurement]] = {
    "boot": lambda session, arguments: boot.measure(session, arguments.kernel, arguments.rounds or 7),
    "card": lambda session, arguments: card.measure(
        session, arguments.kernel, arguments.device or CARD, arguments.rounds or 5
    ),
    "exact": _exact,
    "faults": lambda session, arguments: faults.measure(
        session, arguments.kernel, arguments.device or CARD, arguments.rounds or 400
    ),
    "kmod": lambda session, arguments: kmod.measure(
        session, arguments.kernel, arguments.device or CARD, arguments.rounds or 200
    ),
    "regress": _regress,
    "trace": lambda session, arguments: trace.measure(session, arguments.kernel),
}
