"""`odp-harness doctor`: check the host."""

from __future__ import annotations

import argparse

from harness.cli.common import open_session, out
from harness.machine.doctor import examine


def options(parser: argparse.ArgumentParser) -> None:
    """Add the verb's options."""


def act(arguments: argparse.Namespace) -> int:
    """Print each item; exit status 3 if one that is needed does not work."""
    failed = 0
    with open_session(arguments) as session:
        for finding in examine(session.archive):
            mark = "ok  " if finding.ok else "FAIL"
            out.print(f"{mark} {finding.item}: {finding.text}", markup=False)
            if finding.hint:
                out.print(f"     {'try: ' if not finding.ok else ''}{finding.hint}", markup=False)
            failed += not (finding.ok or finding.optional)
    out.print("everything works" if not failed else f"{failed} to fix", markup=False)
    return 3 if failed else 0
