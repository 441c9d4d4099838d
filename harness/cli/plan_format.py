"""The format of plans, for people and for editors."""

from __future__ import annotations

import argparse
import sys

from harness.plan.format import json_schema, markdown


def options(parser: argparse.ArgumentParser) -> None:
    """Add the options of the verb."""
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--markdown", action="store_true", help="as docs/plan-format.md (the default)")
    form.add_argument("--json-schema", action="store_true", help="as docs/plan.schema.json")


def act(arguments: argparse.Namespace) -> int:
    """Print the format."""
    sys.stdout.write(json_schema() if arguments.json_schema else markdown())
    return 0
