"""Run the cases of a request with given modules; records are cached by the content of everything they depend on."""

from __future__ import annotations

import functools
import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import harness
from harness import agent
from harness.campaign.child_run import ChildRun, run_child
from harness.campaign.outcomes import FAILED, how_ended
from harness.campaign.question import RegressRequest
from harness.errors import UsageError
from harness.kernel.packages import Kernel
from harness.kernel.subsystems import Part
from harness.plan.checkout import plan_files
from harness.plan.plan import FULL
from harness.plan.replay import PAYLOAD
from harness.plan.session import Session
from harness.results.record import read_run, write_atomically
from harness.store import digest
from harness.values.record import Record

RECIPE = 5
# (What is shipped to the guest is in the key by itself.)
_FOLDERS = ("connectx", "device", "machine", "plan")
KEY = "key"
"""A file of a run's folder: the cache key of its records."""


class DoNotCache(Exception):
    """Result must not be cached: the failure may be transient."""


@dataclass(frozen=True)
class ModuleRun:
    """Which modules a machine gets for the cases of a request: files by path, of which parts; `name` is the folder."""

    request: RegressRequest
    kernel: Kernel
    files: Mapping[str, Path]
    parts: Sequence[Part]
    name: str

    @property
    def blocks(self) -> tuple[str, ...]:
        """Name the modules whose executed blocks are logged: none in real time, where logging costs time."""
        if self.request.effect:
            return ()
        return tuple(sorted({module for part in self.parts for module in part.every}))

    @property
    def devices(self) -> tuple[str, ...]:
        """Name the devices that need these modules."""
        return tuple(sorted({device for part in self.parts for device in part.devices}))

    @property
    def folder(self) -> Path:
        """Return the folder of the run below the results of the request."""
        return self.request.results / self.name

    def key(self, session: Session) -> str:
        """Return the cache key of the records."""
        request = self.request
        plans = sorted(plan_files(request.plans))
        return digest(
            RECIPE,
            session.machines.key(self.kernel, session.machines.shape("exact")),
            *(part for item in sorted(agent.bundle().items()) for part in item),
            *(part for place, path in sorted(self.files.items()) for part in (place, path.read_bytes())),
            *(part for plan in plans for part in (plan.stem, plan.read_bytes())),
            harness_code(),
            # Runs in real time are compared with runs of the same hours only.
            str(request.results.resolve()) if request.effect else "",
            # Cases are named after the requested series, whichever kernel that resolves to now.
            [
                request.kernel,
                request.seeds,
                request.cut,
                request.expression,
                request.failures,
                request.round,
                request.icount,
                os.environ.get(FULL, ""),
                self.devices,
                self.blocks,
            ],
        )


def run_cases(session: Session, run: ModuleRun) -> tuple[Record, ...]:
    """Return the records of a request's cases with these modules, from the cache if they are there."""
    return read_run(cached_run(session, run)).records


def cached_run(session: Session, run: ModuleRun) -> Path:
    """Return the folder of those records in the cache: the modules are in its folder PAYLOAD, executed blocks in logs.

    The run is made in the results of the request, where it stays if it is stopped or must not be cached.
    """
    key = run.key(session)
    known = session.store.has("answers", key)
    if known:
        session.say(f"{run.name}: cached")

    def make(into: Path) -> None:
        resumed = _begin(run, key)
        session.say(f"{run.name}: {'resuming' if resumed else 'preparing a machine, then running'} the cases")
        run_child(session, ChildRun(run.request, run.name, run.folder, run.devices, run.blocks, resumed))
        if any(map(_transient, read_run(run.folder).records)):
            raise DoNotCache
        shutil.copytree(run.folder, into, dirs_exist_ok=True)

    try:
        cached = session.store.built("answers", key, make)
    except DoNotCache:
        return run.folder
    if known or not run.folder.exists():
        _copy_out(cached, run.folder)
    return cached


def _copy_out(cached: Path, folder: Path) -> None:
    """Put cached records where the user expects them; UsageError if the folder holds something else."""
    if folder.exists() and not (folder / KEY).exists():
        raise UsageError(f"{folder} is no folder of results", hint="name another with --results or --resume")
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(cached, folder)


def _transient(record: Record) -> bool:
    """Return True if the case may end differently next time.

    Errors may; of failures hangs (a timeout is host time) and all on machines that run in real time.
    """
    if how_ended(record) == FAILED:
        return record.environment.get("clock") != "exact" or any(
            each.kind == "hang" for each in record.reasons
        )
    return record.verdict == "error"


def cached_key(session: Session, request: RegressRequest, name: str) -> str:
    """Return the cache key of the records in a folder of the request's results; empty if they are not cached."""
    key = request.results / name / KEY
    known = key.read_text() if key.exists() else ""
    return known if known and session.store.has("answers", known) else ""


def harness_code() -> str:
    """Digest the harness's own code that records depend on and no snapshot holds: card, device, machine, plans."""
    return code(_FOLDERS)


@functools.cache
def code(folders: tuple[str, ...]) -> str:
    """Digest the Python files of some folders of the harness."""
    here = Path(harness.__file__).parent
    files = (path for folder in folders for path in sorted((here / folder).rglob("*.py")))
    return digest(*(part for path in files for part in (str(path.relative_to(here)), path.read_bytes())))


def _begin(run: ModuleRun, key: str) -> bool:
    """Make the folder of a run with its modules; True if it holds records. UsageError: they have another key."""
    place = run.folder
    if (place / KEY).exists() and (place / KEY).read_text() != key:
        raise UsageError(
            f"{place} was made with other modules or other plans",
            hint="resume with the same patch and plans, or name another folder with --results",
        )
    place.mkdir(parents=True, exist_ok=True)
    write_atomically(place / KEY, key)
    for name, path in run.files.items():
        (place / PAYLOAD / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, place / PAYLOAD / name)
    return (place / "index.json").exists()
