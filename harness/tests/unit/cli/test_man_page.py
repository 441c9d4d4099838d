"""The man page that is made from the parsers."""

import argparse
from pathlib import Path

from harness.cli import whole_parser
from harness.cli.man_page import render

PAGE = Path(__file__).parents[4] / "docs/man/odp-harness.1"


def test_the_committed_page_is_the_generated_one():
    """Mutation: rename an option. If it fails: ./odp-harness completion man > docs/man/odp-harness.1"""
    assert PAGE.read_text() == render(whole_parser())


def test_arguments_are_escaped_and_described():
    """Mutation: do not escape hyphens; forget the guard of a leading dot."""
    parser = argparse.ArgumentParser(prog="odp-harness", description="D.", epilog="E.")
    verb = parser.add_subparsers().add_parser("run", help=".config of a run")
    verb.add_argument("plans", nargs="*")
    verb.add_argument(
        "-k", "--choose", metavar="EXPR", help="a name, default %(default)s", default="all-of-it"
    )
    verb.add_argument("--hidden", help=argparse.SUPPRESS)
    page = render(parser)
    assert ".SS \\fBrun\\fR [\\fIOPTION\\fR...] [\\fIPLANS\\fR...]\n\\&.config of a run\n" in page
    assert (
        ".TP\n\\fB\\-k\\fR \\fIEXPR\\fR, \\fB\\-\\-choose\\fR \\fIEXPR\\fR\na name, default all\\-of\\-it\n"
        in page
    )
    assert "hidden" not in page
