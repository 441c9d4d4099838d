"""`odp-harness lab`: hosts with cards, by ssh."""

from __future__ import annotations

import argparse
import json
import sys
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

from harness.cli.common import JSON, out
from harness.errors import UsageError
from harness.host.ssh import SshHost
from harness.host.ssh_connect import Limits
from harness.lab.check import Report, check
from harness.lab.finding import BOTH, CARD, SOFT_ROCE
from harness.plan.checkout import find_folder
from harness.plan.plan import Plan, load

_MARKS = {"ok": "ok", "note": "", "missing": "MISSING", "unknown": "?"}


def options(parser: argparse.ArgumentParser) -> None:
    """Add the verb's options."""
    parser.add_argument(
        "action", choices=("check",), help="check: what HOST has and lacks; nothing there is changed"
    )
    parser.add_argument(
        "host", metavar="HOST", help="as for ssh: a name of ~/.ssh/config, USER@HOST, HOST:PORT"
    )
    parser.add_argument("--json", action="store_true", help=JSON)
    parser.add_argument("--ssh-config", type=Path, metavar="FILE", help="instead of ~/.ssh/config, as ssh -F")
    parser.add_argument(
        "--timeout",
        type=float,
        default=Limits.connect_s,
        metavar="SECONDS",
        help=f"for the connection as a whole (default: {Limits.connect_s:.0f})",
    )


def act(arguments: argparse.Namespace) -> int:
    """Print the rows; exit status 3 if neither soft-RoCE nor a card could run there."""
    limits = Limits(connect_s=arguments.timeout)
    with SshHost(arguments.host, config=arguments.ssh_config, limits=limits) as host:
        report = check(host)
    plans = _plans(report)
    if arguments.json:
        sys.stdout.write(json.dumps({**report.plain(), "plans": plans}) + "\n")
    else:
        _print(report, plans)
    return 0 if report.runs else 3


def _print(report: Report, plans: Mapping[str, str]) -> None:
    out.print(report.host, markup=False)
    section = ""
    for each in report.findings:
        head = "" if each.section == section else each.section
        out.print(f"{head:10}{each.name:22}{_MARKS[each.state]:9}{each.text}".rstrip(), markup=False)
        if each.hint:
            out.print(f"{'':41}try: {each.hint}", markup=False)
        section = each.section
    for device in BOTH:
        missing = ", ".join(each.name for each in report.missing(device))
        out.print(f"{device}: {'could run here' if not missing else 'missing: ' + missing}", markup=False)
    for why, count in Counter(plans.values()).most_common():
        out.print(f"{count} plans: {why}", markup=False)
    if report.install:
        out.print(f"to install (Debian): {report.install}", markup=False)


def _plans(report: Report) -> dict[str, str]:
    """Return {plan: "could run on DEVICES" or why not} for the checkout's plans, empty without a checkout."""
    try:
        folder = find_folder("testplans", None)
    except UsageError:
        return {}
    return {plan.name: _verdict(plan, report) for plan in map(load, sorted(folder.glob("*.toml")))}


def _verdict(plan: Plan, report: Report) -> str:
    if plan.rules:
        return "skip: injection rules need the emulated card"
    # Any device but soft-RoCE is a model of a card.
    devices = {SOFT_ROCE if device == SOFT_ROCE else CARD for device in plan.devices}
    able = sorted(devices & set(report.runs))
    if able:
        return f"could run on {' and '.join(able)}"
    return f"skip: no {' or '.join(sorted(devices))} here"
