"""Upstream's own tests."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from harness.cli.common import (
    JSON,
    KERNEL,
    err,
    open_session,
    out,
)
from harness.plan import upstream
from harness.values.upstream import Selection, UpstreamTest


def options(parser: argparse.ArgumentParser) -> None:
    """Add the options of the verb."""
    parser.add_argument("suite", choices=tuple(upstream.SUITES), help="whose tests")
    parser.add_argument("--device", default="connectx-5")
    parser.add_argument("--kernel", default="newest", metavar="KERNEL", help=KERNEL)
    matching = "only tests whose name has EXPR in it, or matches it as a whole if it has a * (as unittest -k)"
    parser.add_argument("-k", action="append", default=[], metavar="EXPR", help=matching)
    parser.add_argument("--timeout", type=float, default=180.0, metavar="S", help="of one test (180)")
    parser.add_argument(
        "--results", type=Path, metavar="DIR", help="keep console and card's conversation there"
    )
    parser.add_argument("--json", action="store_true", help=JSON)


def act(arguments: argparse.Namespace) -> int:
    """Return 0 when no test failed, the card found nothing and the console is clean; 1 otherwise."""
    selection = Selection(tuple(arguments.k), timeout_s=arguments.timeout)
    with open_session(arguments) as session:
        seen = upstream.run(
            session,
            arguments.suite,
            arguments.kernel,
            arguments.device,
            selection,
            _progress,
            arguments.results,
        )
    if arguments.json:
        sys.stdout.write(json.dumps(seen.plain()) + "\n")
    else:
        _print(seen)
    return 0 if seen.passed else 1


def _progress(test: UpstreamTest, number: int) -> None:
    if test.outcome != "started":
        words = f"{number:4} {test.outcome} {test.name} {test.wall_s:.1f} s"
        err.print(words + (f": {test.reason}" if test.reason else ""), markup=False)


def _print(seen: upstream.UpstreamRun) -> None:
    for test in seen.tests:
        reason = f": {test.reason}" if test.reason else ""
        out.print(f"{test.outcome}  {test.name}{reason}", markup=False)
    for finding in seen.findings:
        out.print(f"finding  {finding.kind}: {finding.subject}: {finding.detail}", markup=False)
    for symptom in seen.symptoms:
        out.print(f"console  {symptom.headline}\n         {symptom.fingerprint}", markup=False)
    for problem in seen.problems:
        out.print(problem, markup=False)
    verdict = "PASSED" if seen.passed else "FAILED"
    counts = ", ".join(f"{seen.count(o)} {word}" for o, word in WORDS.items() if seen.count(o))
    out.print(
        f"{verdict}: {seen.suite} {seen.version} on {seen.device}, {seen.kernel}: {counts}", markup=False
    )


WORDS = {"pass": "passed", "fail": "failed", "skip": "skipped", "known": "known failures"}
