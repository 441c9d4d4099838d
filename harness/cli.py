"""The command line: one subcommand per verb. The only place that prints to people or exits."""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
import termios
from collections.abc import Callable, Sequence
from pathlib import Path
from types import FrameType
from typing import Any

import pytest
from rich.console import Console
from rich.table import Table

from harness import __version__
from harness.bench import boot, card, exact
from harness.device import emulated
from harness.errors import HarnessError, SetupError, Unsupported, UsageError
from harness.kernel.packages import SERIES
from harness.machine.doctor import examine
from harness.plan import caps, plugin
from harness.plan.plan import load
from harness.plan.progress import Progress
from harness.plan.session import Options, Session, find_folder
from harness.results.live import open_view
from harness.results.record import exit_status, read_run
from harness.results.reports import write_reports
from harness.store import Store, default_root, parse_size
from harness.values.case import Order

EXIT_INTERRUPTED = 130
# Order numbers are just newer than a snapshot's own.
SHELL = 9
JSON = "print one JSON object and nothing else on stdout"

out = Console(highlight=False, soft_wrap=True)
err = Console(stderr=True, highlight=False, soft_wrap=True)


def main(argv: Sequence[str] | None = None) -> int:
    """Run a subcommand; returns the exit status (0 pass, 1 failed, 2 usage, 3 set-up or nothing executed)."""
    arguments = _parser().parse_args(argv)
    signal.signal(signal.SIGTERM, _terminated)
    try:
        return int(arguments.verb(arguments))
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


def _terminated(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="odp-harness",
        description="Test harness for RDMA on-demand paging in the Linux kernel.",
        epilog="Start with `odp-harness doctor`, then `odp-harness run`.",
    )
    parser.add_argument("--version", action="version", version=f"odp-harness {__version__}")
    verbs = parser.add_subparsers(required=True, metavar="COMMAND")

    def verb(name: str, action: Callable[[argparse.Namespace], int], text: str) -> argparse.ArgumentParser:
        sub = verbs.add_parser(name, help=text, description=text)
        sub.set_defaults(verb=action)
        sub.add_argument("--cache", type=Path, metavar="DIR", help="default: ~/.cache/odp-harness")
        sub.add_argument("--cache-limit", metavar="SIZE", help="as 30G (the default)")
        sub.add_argument("--mirror", metavar="URL", help="Debian archive (default: the host's own)")
        sub.add_argument("--vm-images", type=Path, metavar="DIR", help="default: vm-images/ of the checkout")
        sub.add_argument("--image", default="trixie", help="a file of vm-images/")
        return sub

    _add_run(verb("run", _run, "Run plans and print the verdict."))
    report = verb("report", _report, "Make the reports of a run again.")
    report.add_argument("directory", type=Path)
    kernel = verb("kernel", _kernel, "List the kernels of the archive, or fetch some.")
    kernel.add_argument("action", choices=("list", "fetch"))
    kernel.add_argument(
        "series", nargs="*", help=f"{', '.join(SERIES)}, or an exact release; default: all series"
    )
    kernel.add_argument("--refresh", action="store_true", help="read the archive's lists anew")
    verb("doctor", _doctor, "Say item by item what works here, and what to do about what does not.")
    cache = verb("cache", _cache, "Show what the cache holds, or make room.")
    cache.add_argument(
        "--prune", metavar="SIZE", help="remove the least recently used until SIZE (as 5G) is left"
    )
    shell = verb("shell", _shell, "A prepared machine, interactive; `exit` ends it.")
    shell.add_argument("--kernel", default="newest", metavar="SERIES")
    shell.add_argument("--device", default="soft-roce")
    words = "What a device can do on demand: as verbs say, and as a card's firmware states."
    asked = verb("caps", _caps, words)
    asked.add_argument("--device", default="connectx-5")
    asked.add_argument("--kernel", default="newest", metavar="SERIES")
    asked.add_argument("--json", action="store_true", help=JSON)
    _add_card(verb("card", _card, "An emulated card for anybody's QEMU; prints the options to give to QEMU."))
    _add_bench(verb("bench", _bench, "Measure one claim of speed, as ratios of one run."))
    return parser


def _add_card(card: argparse.ArgumentParser) -> None:
    card.add_argument("--model", default="connectx-5", help=f"one of {', '.join(emulated.MODELS)}")
    card.add_argument("--socket", type=Path, required=True, help="where QEMU connects")
    card.add_argument("--control", type=Path, help="rules in, findings out (default: SOCKET.control)")
    card.add_argument("--headers", type=Path, help="include/ of the guest's kernel (default: of --kernel)")
    card.add_argument("--kernel", default="newest", metavar="SERIES")
    card.add_argument("--log", type=Path, help="write the conversation there (.gz: compressed)")


def _add_bench(bench: argparse.ArgumentParser) -> None:
    bench.add_argument("name", choices=("boot", "card", "exact"))
    bench.add_argument("--json", action="store_true", help=JSON)
    bench.add_argument("--rounds", type=int, help="how often (boot: 7, card: 5, exact: 10)")
    bench.add_argument("--kernel", default="newest", metavar="SERIES")
    bench.add_argument("--device", default="connectx-5", help="for card: the model")
    plan = "for exact: the plan whose first case is run (default: odp-write)"
    bench.add_argument("--plan", type=Path, help=plan)


def _add_run(run: argparse.ArgumentParser) -> None:
    run.add_argument(
        "plans", nargs="*", type=Path, help="plan files or folders (default: testplans/ of the checkout)"
    )
    run.add_argument(
        "--kernel", action="append", default=[], metavar="SERIES", help="default: newest; `all`: the plans'"
    )
    run.add_argument("--device", action="append", default=[], help="run on these devices only")
    run.add_argument(
        "--time", choices=("exact", "real"), help="clock of the machines (default: the device's)"
    )
    run.add_argument(
        "--twice", action="store_true", help="run each exact case twice; the answers must be equal"
    )
    run.add_argument("--no-skip", action="store_true", help="a missing need is a failure, not a skip")
    run.add_argument("--results", type=Path, metavar="DIR", help="default: odp-results/TIME")
    run.add_argument("-k", metavar="EXPR", help="only cases whose name matches (as pytest -k)")
    run.add_argument("-x", action="store_true", help="stop at the first failure")
    jobs = os.cpu_count() or 1
    run.add_argument(
        "-j", "--jobs", type=int, default=jobs, help=f"cases at the same time (default here: {jobs})"
    )
    run.add_argument("--list", action="store_true", help="print the cases and run none")


def _options(arguments: argparse.Namespace) -> Options:
    limit = parse_size(arguments.cache_limit) if arguments.cache_limit else None
    return Options(arguments.cache, limit, arguments.mirror, arguments.image, arguments.vm_images)


def _session(arguments: argparse.Namespace) -> Session:
    return Session(_options(arguments), lambda line: err.print(f"… {line}", style="dim", markup=False))


def _kernel(arguments: argparse.Namespace) -> int:
    with _session(arguments) as session:
        if arguments.refresh:
            session.archive.refresh(max_age_s=0)
        table = Table("series", "release", "package", "cached")
        missing = []
        for series in arguments.series or SERIES:
            try:
                if arguments.action == "fetch":
                    session.kernel(series)
                release = session.kernels.resolve(series)
            except Unsupported as error:
                missing.append(error.headline)
                table.add_row(series, "-", error.headline, "")
                continue
            package = session.archive.show(f"linux-image-{release}")
            cached = any((session.store.root / "kernel").glob(f"{release}-*"))
            table.add_row(series, release, package.version if package else "?", "yes" if cached else "no")
        out.print(table)
    return 3 if missing and arguments.action == "fetch" else 0


def _doctor(arguments: argparse.Namespace) -> int:
    failed = 0
    with _session(arguments) as session:
        for finding in examine(session.archive):
            mark = "ok  " if finding.ok else "FAIL"
            out.print(f"{mark} {finding.item}: {finding.text}", markup=False)
            if finding.hint:
                out.print(f"     {'try: ' if not finding.ok else ''}{finding.hint}", markup=False)
            failed += not (finding.ok or finding.optional)
    out.print("everything works" if not failed else f"{failed} to mend", markup=False)
    return 3 if failed else 0


def _cache(arguments: argparse.Namespace) -> int:
    store = Store(arguments.cache or default_root())
    if arguments.prune:
        for entry in store.prune(parse_size(arguments.prune)):
            out.print(f"removed {entry.kind}/{entry.key} ({entry.size_bytes >> 20} MiB)", markup=False)
    table = Table("kind", "entries", "MiB", title=str(store.root))
    sizes: dict[str, list[int]] = {}
    for entry in store.entries():
        sizes.setdefault(entry.kind, []).append(entry.size_bytes)
    for kind, bytes_each in sorted(sizes.items()):
        table.add_row(kind, str(len(bytes_each)), str(sum(bytes_each) >> 20))
    table.add_row("all", str(sum(map(len, sizes.values()))), str(sum(map(sum, sizes.values())) >> 20))
    out.print(table)
    return 0


def _shell(arguments: argparse.Namespace) -> int:
    device, typed = arguments.device, sys.stdin.isatty()
    columns, lines = out.size
    size = {"COLUMNS": str(columns), "LINES": str(lines)}
    argv = () if typed else ("bash", "-c", sys.stdin.read())
    order = Order(SHELL, "shell" if typed else "exec", device, argv=argv, environment=size)
    terminal = termios.tcgetattr(sys.stdin) if typed else None
    with _session(arguments) as session:
        try:
            kernel, snapshot = session.prepared(arguments.kernel, device, "real")
            reply = session.lend(kernel, snapshot, order, typed)
        finally:
            if terminal is not None:
                # QEMU makes the terminal raw and is killed, not asked to end.
                termios.tcsetattr(sys.stdin, termios.TCSADRAIN, terminal)
    sys.stdout.write(reply.output)
    return reply.exit_status


def _caps(arguments: argparse.Namespace) -> int:
    with _session(arguments) as session:
        found = caps.ask(session, arguments.kernel, arguments.device)
    if arguments.json:
        sys.stdout.write(json.dumps(found.plain()) + "\n")
        return 0
    schemes = [f"firmware, {name} scheme" + ("*" * (name == found.scheme)) for name in found.firmware]
    title = f"on-demand paging of {found.device} on {found.kernel}, there {found.rdma_device}"
    table = Table("", "verbs", *schemes, title=title, caption="* what the driver chose" if schemes else None)
    for row, words in found.verbs.items():
        table.add_row(
            row, *(" ".join(w) or "-" for w in (words, *(f.get(row, ()) for f in found.firmware.values())))
        )
    out.print(table)
    return 0


def _card(arguments: argparse.Namespace) -> int:
    headers = arguments.headers
    if headers is None:
        with _session(arguments) as session:
            headers = session.kernel(arguments.kernel).headers / "include"
    return emulated.serve(arguments.model, arguments.socket, headers, arguments.control, arguments.log)


def _bench(arguments: argparse.Namespace) -> int:
    with _session(arguments) as session:
        result: Any
        if arguments.name == "boot":
            result = boot.measure(session, arguments.kernel, arguments.rounds or 7)
        elif arguments.name == "card":
            result = card.measure(session, arguments.kernel, arguments.device, arguments.rounds or 5)
        else:
            path = arguments.plan or find_folder("testplans", None) / "odp-write.toml"
            planned = next(load(path).cases((arguments.kernel,)))
            result = exact.measure(session, planned, arguments.rounds or 10)
    plain = result.plain()
    if arguments.json:
        sys.stdout.write(json.dumps(plain) + "\n")
        return 0
    table = Table("figure", "value", title=f"bench {arguments.name}")
    for name, value in plain.items():
        table.add_row(name, str(value))
    out.print(table)
    return 0


def _run(arguments: argparse.Namespace) -> int:
    plans = arguments.plans or [find_folder("testplans", None)]
    for path in plans:
        if not path.exists():
            raise UsageError(f"{path} does not exist", hint="a plan file or a folder of them")
        for file in sorted(path.glob("*.toml")) if path.is_dir() else [path]:
            load(file)
    directory = arguments.results or plugin.default_results()
    if arguments.list:
        return _list(arguments, plans)
    if (directory / "index.json").exists():
        raise UsageError(f"{directory} already holds the results of a run", hint="another --results")
    with open_view(out) as view:
        status = pytest.main(
            _pytest_arguments(arguments, plans, directory), plugins=[Progress(view, directory)]
        )
        if status == pytest.ExitCode.USAGE_ERROR:
            return 2
        if status == pytest.ExitCode.NO_TESTS_COLLECTED or not (directory / "records").is_dir():
            raise SetupError("no case was executed", ["none matches the given -k, --kernel and --device"])
        reports = write_reports(directory)
        run = read_run(directory)
        view.summary(run, reports["report.html"])
    return EXIT_INTERRUPTED if status == pytest.ExitCode.INTERRUPTED else exit_status(run.records)


def _pytest_arguments(arguments: argparse.Namespace, plans: list[Path], directory: Path) -> list[str]:
    given = ["-p", "harness.plan.plugin", "-p", "no:terminal", "-p", "no:cacheprovider", "-o", "addopts="]
    # Nothing is captured: what a view draws while a case runs is for people now.
    given += ["--capture=no"]
    given += [f"--results={directory}", f"--image={arguments.image}"]
    given += [f"--kernel={series}" for series in arguments.kernel]
    given += [f"--device={device}" for device in arguments.device]
    if arguments.cache_limit:
        given += [f"--cache-limit={parse_size(arguments.cache_limit)}"]
    for name in ("cache", "mirror", "vm_images", "time"):
        value = getattr(arguments, name)
        given += [f"--{name.replace('_', '-')}={value}"] if value is not None else []
    given += [flag for flag, on in (("--twice", arguments.twice), ("--no-skip", arguments.no_skip)) if on]
    given += ["-k", arguments.k] if arguments.k else []
    given += ["-x"] if arguments.x else []
    given += ["-n", str(arguments.jobs)] if arguments.jobs > 1 else []
    return [*given, *map(str, plans)]


def _list(arguments: argparse.Namespace, plans: list[Path]) -> int:
    for path in plans:
        for file in sorted(path.glob("*.toml")) if path.is_dir() else [path]:
            plan = load(file)
            out.print(f"{plan.path}: {plan.title}", markup=False)
            for planned in plugin.chosen(plan, arguments):
                out.print(f"  {planned.case.id}", markup=False)
    return 0


def _report(arguments: argparse.Namespace) -> int:
    reports = write_reports(arguments.directory)
    run = read_run(arguments.directory)
    open_view(out).summary(run, reports["report.html"])
    return exit_status(run.records)
