"""The command line: one module per verb. The only place that prints to people or exits.

A verb is a module with `options(parser)` and `act(arguments)`, which returns the exit status: 0 pass, 1 failed,
2 usage, 3 set-up or nothing executed. It is imported when it is called, so that --version and --help are quick.
"""

from __future__ import annotations

import argparse
import errno
import importlib
import os
import signal
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType, ModuleType

from harness import __version__
from harness.errors import EXIT_INTERRUPTED, HarnessError, SetupError

# The host's own state, not a mistake of ours.
_HOSTS = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EMFILE, errno.ENOMEM)

VERBS = {
    "run": "Run plans and print the verdict.",
    "report": "Write the reports of a run again.",
    "regress": "Test if a kernel patch is a regression: build the modules it changes with and without it, run plans on "
    "both.",
    "compare": "Compare two stored runs: regression, improvement, no difference or inconclusive.",
    "replay": "Run a stored case again, with its own kernel, modules, plan and seed, and compare how it ends.",
    "corpus": "Reintroduce bugs of the past, one by one, and report which of them the plans catch.",
    "coverage": "Measure which lines of the modules under test the cases of plans execute, without changing a case.",
    "kernel": "List the kernels of the archive, fetch some, or print what the .config of a tree of yours needs.",
    "kmod": "Build kmod/ (or a module of yours) with the compiler that built a kernel; load it into the host's kernel, "
    "or unload it. Then: odp-harness pagefault.",
    "pagefault": "Watch and resume page faults of the host's mlx5 cards (after `odp-harness kmod load`).",
    "lab": "Check a lab host by ssh: what it has, which devices could run there, what to install. Plans do not run "
    "there yet.",
    "doctor": "Check the host item by item, with a hint for each that does not work.",
    "cache": "Show the size of the cache by kind of entry, or prune it.",
    "shell": "Start a shell in a prepared machine, or run the script on stdin: its output and exit status.",
    "trace": "Trace page faults, stage by stage: on the host (as root) until Ctrl-C, or with --vm in a guest while "
    "COMMAND runs there.",
    "caps": "Show the ODP capabilities of a device: as verbs report them, as its firmware states them, and as kmod/ "
    "reads them (the current page; `!` where the maximum differs).",
    "card": "Serve an emulated card for any QEMU; prints the options to give to QEMU.",
    "upstream": "Run upstream's own tests in a machine, on a device, and print the result of each.",
    "bench": "Measure one claim of speed, as ratios within one run.",
    "plan-format": "Print the format of plans: as Markdown, or as a JSON Schema.",
    "completion": "Print shell completion for bash or zsh, or the man page (docs/man/odp-harness.1).",
}
"""Every verb with its line for --help, in the order of --help; `plan-format` is the module plan_format."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run a verb; return the exit status."""
    argv = sys.argv[1:] if argv is None else argv
    # No option of ours before the verb takes a value.
    name = next((word for word in argv if not word.startswith("-")), "")
    verb = _module(name) if name in VERBS else None
    try:
        arguments = _parser({name: verb} if verb else {}).parse_args(argv)
    except SystemExit as end:
        status = int(end.code or 0)
        own = getattr(verb, "usage_status", None)
        return int(own(argv, status)) if own else status
    return _act(arguments)


def _act(arguments: argparse.Namespace) -> int:
    from harness.cli.common import err
    from harness.store import default_root

    signal.signal(signal.SIGTERM, _terminated)
    try:
        with _reaped(arguments.cache or default_root()):
            return int(arguments.act(arguments))
    except HarnessError as error:
        err.print(f"error: {error.render()}", markup=False)
        return error.exit_status or 3
    except KeyboardInterrupt:
        err.print("interrupted; nothing is left running")
        return EXIT_INTERRUPTED
    except BrokenPipeError:
        # The reader of our output is gone; Python would complain once more at its end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except OSError as error:
        if error.errno not in _HOSTS:
            raise
        err.print(f"error: {error.strerror}: {error.filename or 'while writing'}", markup=False)
        return SetupError.exit_status


@contextmanager
def _reaped(cache: Path) -> Iterator[None]:
    """Undo at the end what workers left that were killed before they could do it."""
    from harness.ledger import reap

    try:
        yield
    finally:
        reap(cache / "runs")


def _terminated(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def whole_parser() -> argparse.ArgumentParser:
    """Return the parser with the options of every verb."""
    return _parser({name: _module(name) for name in VERBS})


def _module(name: str) -> ModuleType:
    return importlib.import_module(f"{__name__}.{name.replace('-', '_')}")


def _parser(modules: Mapping[str, ModuleType]) -> argparse.ArgumentParser:
    """Return the parser of all verbs; only those in `modules` have their options."""
    parser = argparse.ArgumentParser(
        prog="odp-harness",
        description="Test harness for RDMA on-demand paging in the Linux kernel.",
        epilog="Start with `odp-harness doctor`, then `odp-harness run`.",
    )
    parser.add_argument("--version", action="version", version=f"odp-harness {__version__}")
    verbs = parser.add_subparsers(required=True, metavar="COMMAND")
    for name, text in VERBS.items():
        sub = verbs.add_parser(name, help=text, description=text)
        if name in modules:
            from harness.cli.common import common_options

            sub.set_defaults(act=modules[name].act)
            common_options(sub)
            modules[name].options(sub)
    return parser
