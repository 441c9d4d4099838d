"""The command line: one module per verb. The only place that prints to people or exits.

A verb is a module with `TEXT` (one sentence for --help), `options(parser)` and `act(arguments)`, which returns
the exit status: 0 pass, 1 failed, 2 usage, 3 set-up or nothing executed.
"""

from __future__ import annotations

import argparse
import errno
import os
import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

from harness import __version__
from harness.cli import (
    bench,
    cache,
    caps,
    card,
    compare,
    completion,
    corpus,
    coverage,
    doctor,
    kernel,
    kmod,
    pagefault,
    regress,
    replay,
    report,
    run,
    shell,
    trace,
    upstream,
)
from harness.cli.common import (
    common_options,
    err,
)
from harness.errors import EXIT_INTERRUPTED, HarnessError
from harness.ledger import reap
from harness.results.record import EXIT_SETUP
from harness.store import default_root

# The host's own state, not a mistake of ours.
_HOSTS = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EMFILE, errno.ENOMEM)

VERBS = (
    run,
    report,
    regress,
    compare,
    replay,
    corpus,
    coverage,
    kernel,
    kmod,
    pagefault,
    doctor,
    cache,
    shell,
    trace,
    caps,
    card,
    upstream,
    bench,
    completion,
)


def main(argv: Sequence[str] | None = None) -> int:
    """Run a subcommand; returns the exit status."""
    try:
        arguments = _parser().parse_args(argv)
    except SystemExit as end:
        return regress.usage_status(sys.argv[1:] if argv is None else argv, int(end.code or 0))
    signal.signal(signal.SIGTERM, _terminated)
    try:
        with _undone(arguments.cache or default_root()):
            return int(arguments.act(arguments))
    except HarnessError as error:
        err.print(f"error: {error.render()}", markup=False)
        return error.exit_status or 3
    except KeyboardInterrupt:
        err.print("interrupted; nothing is left running")
        return EXIT_INTERRUPTED
    except BrokenPipeError:
        # Whoever read our output is gone; Python would complain once more at its end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except OSError as error:
        if error.errno not in _HOSTS:
            raise
        err.print(f"error: {error.strerror}: {error.filename or 'while writing'}", markup=False)
        return EXIT_SETUP


@contextmanager
def _undone(cache: Path) -> Iterator[None]:
    """At the end also what workers made is undone that were ended before they could do it themselves."""
    try:
        yield
    finally:
        reap(cache / "runs")


def _terminated(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def whole_parser() -> argparse.ArgumentParser:
    """Return the parser with the options of every verb."""
    return _parser()


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="odp-harness",
        description="Test harness for RDMA on-demand paging in the Linux kernel.",
        epilog="Start with `odp-harness doctor`, then `odp-harness run`.",
    )
    parser.add_argument("--version", action="version", version=f"odp-harness {__version__}")
    verbs = parser.add_subparsers(required=True, metavar="COMMAND")
    for verb in VERBS:
        name = verb.__name__.rpartition(".")[2].replace("_", "-")
        sub = verbs.add_parser(name, help=verb.TEXT, description=verb.TEXT)
        sub.set_defaults(act=verb.act)
        common_options(sub)
        verb.options(sub)
    return parser
