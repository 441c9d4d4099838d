"""Shell completion and the man page, made from the parsers of all verbs."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path

import shtab

from harness.cli.man_page import render
from harness.device.catalogue import DEVICES


def options(parser: argparse.ArgumentParser) -> None:
    """Add the options of the verb."""
    parser.add_argument("what", choices=("bash", "zsh", "man"))


def act(arguments: argparse.Namespace) -> int:
    """Print the man page or a completion script."""
    # Not at the top: that module imports this one.
    from harness.cli import whole_parser

    parser = whole_parser()
    sys.stdout.write(render(parser) if arguments.what == "man" else completion(parser, arguments.what))
    return 0


def completion(parser: argparse.ArgumentParser, shell: str) -> str:
    """Return the completion script for a shell: verbs, options, choices, devices, and files where a path is taken."""
    for action in _actions(parser):
        if "--device" in action.option_strings and action.choices is None:
            action.choices = tuple(DEVICES)
        elif action.type is Path:
            complete = shtab.DIRECTORY if action.metavar == "DIR" else shtab.FILE
            action.complete = complete  # type: ignore[attr-defined]
    return shtab.complete(parser, shell=shell)


def _actions(parser: argparse.ArgumentParser) -> Iterator[argparse.Action]:
    for action in parser._actions:
        yield action
        if isinstance(action, argparse._SubParsersAction):
            for sub in action.choices.values():
                yield from _actions(sub)
