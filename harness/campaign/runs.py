"""Runs that a campaign needs made: modules built from a tree, and the answers of a machine that has them.

Both are kept by content, since the same is asked again and again.
"""

from __future__ import annotations

import contextlib
import functools
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

import harness
from harness import agent
from harness.campaign.outcomes import FAILED, how_ended
from harness.errors import SetupError, UsageError
from harness.kernel.build import build
from harness.kernel.packages import Kernel
from harness.kernel.source import source
from harness.kernel.subsystems import (
    HEADERS,
    Part,
)
from harness.plan.checkout import plan_files
from harness.plan.plan import FULL
from harness.plan.pytest_args import RunRequest
from harness.plan.replay import PARCEL
from harness.plan.session import Session
from harness.results.record import read_run, write_atomically
from harness.store import digest
from harness.values.record import Record

RECIPE = 5
POLL_S = 0.5
HANGS = 2
"""A run ends after so many cases that hung: each costs its deadline, and it is clear what is wrong."""
END_S = 60.0
GOES_ON = "the same command with --resume, and its folder of results, goes on"
BROKEN = (pytest.ExitCode.INTERNAL_ERROR, pytest.ExitCode.USAGE_ERROR)
# (What is shipped to the machine is in the key by itself.)
_JUDGING = ("connectx", "device", "machine", "plan")
SIDES = ("base", "patched")
"""Folders of results: of the modules without what is judged, and of those with it."""
KEY = "key"
"""A file: what the answers beside it are kept as."""


@dataclass(frozen=True)
class RegressRequest:
    """What is asked: of what (a name), for which kernel, by which plans, with how many seeds, at most so many cases of
    a plan. A run ends after `failures` (0: never): a machine that hangs costs its deadline each time, and all is clear.

    `results` is a folder for everything that comes of it. `paced`: machines with a card count instructions, too.
    `detect`: latencies are judged in real time, until a difference of this part of one would show, in turns; `turn` is
    the number of one.
    """

    name: str
    kernel: str
    plans: Sequence[Path]
    results: Path
    seeds: int = 16
    cut: int = 1
    jobs: int = 1
    expression: str = ""
    failures: int = 4
    paced: bool = True
    detect: float = 0.0
    turn: int = 0

    @property
    def exact(self) -> RegressRequest:
        """The same, once, to its end, with machines that count instructions."""
        return replace(self, detect=0.0, turn=0, seeds=1, failures=0)


def copied(stock: Path, parts: Sequence[Part], into: Path) -> None:
    """A copy of the parts' source, and of the headers that go before the kernel's own, that may be changed."""
    for folder in (*(part.folder for part in parts), HEADERS.rstrip("/")):
        shutil.copytree(stock / folder, into / folder, dirs_exist_ok=True)


def modules(
    session: Session, kernel: Kernel, tree: Path, parts: Sequence[Part]
) -> tuple[dict[str, Path], str]:
    """The parts' modules built from a tree, by their place in a parcel; and the compiler. Of what is as in the
    distribution's source nothing is compiled again.
    """
    found, compiler, _ = modules_with_lines(session, kernel, tree, parts, False)
    return found, compiler


def modules_with_lines(
    session: Session,
    kernel: Kernel,
    tree: Path,
    parts: Sequence[Part],
    lines: bool = True,
    clean: bool = False,
) -> tuple[dict[str, Path], str, dict[str, Path]]:
    """The same, and by module its line tables; the modules are the same to the last byte. `clean`: all is compiled."""
    found: dict[str, Path] = {}
    tables: dict[str, Path] = {}
    compiler = ""
    stock = None if clean else source(kernel, session.archive)
    for part in parts:
        built = build(
            tree / part.folder, kernel, session.archive, include=tree / HEADERS, lines=lines, like=stock
        )
        compiler = built.compiler
        tables |= {name: table for name, table in built.lines.items() if name in part.every}
        for name in part.modules:
            if name not in built.modules:
                raise SetupError(f"{part.folder} has built no {name}", [", ".join(built.modules)])
        found |= {f"modules/{name}.ko": built.modules[name] for name in part.every if name in built.modules}
    return found, compiler, tables


def answers(
    session: Session,
    question: RegressRequest,
    kernel: Kernel,
    files: Mapping[str, Path],
    parts: Sequence[Part],
    name: str,
) -> tuple[Record, ...]:
    """Records of the question's cases with these modules; kept by content, since the same is asked again and again."""
    return read_run(kept(session, question, kernel, files, parts, name)).records


def kept(
    session: Session,
    question: RegressRequest,
    kernel: Kernel,
    files: Mapping[str, Path],
    parts: Sequence[Part],
    name: str,
) -> Path:
    """The folder of those records, in the cache, with the modules in its folder PARCEL; and with what each case ran of
    the parts. To note that changes no instruction, but real time, in which it is left out.
    """
    blocks = () if question.detect else tuple(sorted({module for part in parts for module in part.every}))
    devices = sorted({device for part in parts for device in part.devices})
    plans = sorted(plan_files(question.plans))
    key = digest(
        RECIPE,
        session.machines.key(kernel, session.machines.shape("exact")),
        *(part for item in sorted(agent.bundle().items()) for part in item),
        *(part for place, path in sorted(files.items()) for part in (place, path.read_bytes())),
        *(part for plan in plans for part in (plan.stem, plan.read_bytes())),
        judging(),
        # What ran in real time is compared with what ran in the same hours only.
        str(question.results.resolve()) if question.detect else "",
        # Cases are named after the series that was asked for, whichever kernel it is now.
        [
            question.kernel,
            question.seeds,
            question.cut,
            question.expression,
            question.failures,
            question.turn,
            question.paced,
            os.environ.get(FULL, ""),
            devices,
            blocks,
        ],
    )
    known = session.store.has("answers", key)
    if known:
        session.say(f"{name}: known already")

    place = question.results / name

    def make(into: Path) -> None:
        # What is made is made where the user sees it, and stays there whatever happens.
        begun = _begin(place, key, files)
        session.say(f"{name}: {'going on with' if begun else 'preparing a machine, then'} the cases")
        _run(session, question, devices, name, blocks, place, begun)
        if any(map(_may_pass, read_run(place).records)):
            raise DoNotCache
        shutil.copytree(place, into, dirs_exist_ok=True)

    try:
        folder = session.store.built("answers", key, make)
    except DoNotCache:
        return place
    if known or not place.exists():
        if place.exists() and not (place / KEY).exists():
            raise UsageError(
                f"{place} is no folder of results", hint="name another with --results or --resume"
            )
        shutil.rmtree(place, ignore_errors=True)
        shutil.copytree(folder, place)
    return folder


class DoNotCache(Exception):
    """A case could not run or failed, perhaps for a reason that passes: what came of it is no answer for ever."""


def _may_pass(record: Record) -> bool:
    """Whether it could end otherwise another time: what could not run; of failures hangs, since deadlines are the
    host's time, and those of machines that wait in real time.
    """
    if how_ended(record) == FAILED:
        return record.environment.get("clock") != "exact" or any(
            each.kind == "hang" for each in record.reasons
        )
    return record.verdict == "error"


def kept_as(session: Session, question: RegressRequest, name: str) -> str:
    """The key of the answers in a folder of the question's results; empty if they are not kept."""
    key = question.results / name / KEY
    known = key.read_text() if key.exists() else ""
    return known if known and session.store.has("answers", known) else ""


def judging() -> str:
    """A digest of the harness's own code that an answer depends on and that no snapshot holds: the card, the plans'
    laws and verdicts, the symptoms.
    """
    return code(_JUDGING)


@functools.cache
def code(rooms: tuple[str, ...]) -> str:
    """A digest of the harness's own code in some rooms."""
    here = Path(harness.__file__).parent
    files = (path for room in rooms for path in sorted((here / room).rglob("*.py")))
    return digest(*(part for path in files for part in (str(path.relative_to(here)), path.read_bytes())))


def _begin(place: Path, key: str, files: Mapping[str, Path]) -> bool:
    """Make the folder of a run, with its modules; whether one began there before. UsageError: it was another."""
    if (place / KEY).exists() and (place / KEY).read_text() != key:
        raise UsageError(
            f"{place} is of other modules or other plans",
            hint="go on with what it was begun with, or name another folder with --results",
        )
    place.mkdir(parents=True, exist_ok=True)
    write_atomically(place / KEY, key)
    for name, path in files.items():
        (place / PARCEL / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, place / PARCEL / name)
    return (place / "index.json").exists()


def _run(
    session: Session,
    question: RegressRequest,
    devices: Sequence[str],
    name: str,
    blocks: tuple[str, ...],
    into: Path,
    begun: bool,
) -> None:
    options = session.options
    values: dict[str, object] = {
        "cache": session.store.root,
        "mirror": options.mirror,
        "vm_images": options.images,
        "image": options.image,
        "seeds": question.seeds,
        "cut": question.cut,
        "parcel": into / PARCEL,
        "time": "real" if question.detect else None,
        "blocks": blocks,
        "ruled_once": True,
        "paced": question.paced and not question.detect,
        "resume": into if begun else None,
    }
    wanted = RunRequest(
        question.plans,
        into,
        [question.kernel],
        devices,
        values,
        (),
        question.expression,
        question.jobs,
    )
    log = into / "pytest.log"
    with log.open("wb") as output:
        argv = [sys.executable, "-m", "pytest", *wanted.arguments()]
        child = session.host.start(argv, stdout=output, stderr=output)
    try:
        stopped = _follow(session, into, name, lambda: child.poll() is not None, question.failures)
        if stopped:
            child.send_signal(signal.SIGINT)
            with contextlib.suppress(subprocess.TimeoutExpired):
                child.wait(END_S)
    finally:
        session.host.stop(child)
    run = read_run(into) if (into / "records").is_dir() else None
    said = log.read_text(errors="replace").splitlines()[-10:]
    if run is None or not run.records or child.returncode in BROKEN:
        raise SetupError(f"no case was executed with the {name} modules", said)
    if not stopped and (not run.index.finished or run.index.interrupted):
        ended = f"the run with the {name} modules did not come to its end (status {child.returncode})"
        raise SetupError(ended, said, GOES_ON)
    if run.damaged or (run.missing and not stopped):
        lost = f"of the run with the {name} modules {run.missing} cases have no result"
        raise SetupError(lost, [*run.damaged, *said], GOES_ON)


def _follow(session: Session, into: Path, name: str, ended: Callable[[], bool], failures: int = 0) -> bool:
    """Wait for a run and say how far it is, ten times; not to its end, and True, once HANGS cases hung or so many
    failed (0: whatever fails). A case that does not fail as it is known to has not failed here.
    """
    told = seen = 0
    while not ended():
        time.sleep(POLL_S)
        records = into / "records"
        number = len(list(records.iterdir())) if records.is_dir() else 0
        if number == seen:
            continue
        seen = number
        run = read_run(into)
        failed = [record for record in run.records if how_ended(record) == FAILED]
        if sum(any(reason.kind == "hang" for reason in record.reasons) for record in failed) >= HANGS:
            session.say(f"{name}: {HANGS} cases hung, the rest is left out")
            return True
        if failures and len(failed) >= failures:
            session.say(f"{name}: {len(failed)} cases failed, the rest is left out")
            return True
        expected = run.index.expected
        if expected and len(run.records) * 10 // expected > told:
            told = len(run.records) * 10 // expected
            session.say(f"{name}: {len(run.records)} of {expected} cases")
    return False
