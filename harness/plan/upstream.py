"""Run upstream's own tests unchanged in a machine: rdma-core's Python tests of the guest's version."""

from __future__ import annotations

import fnmatch
import json
import re
import shutil
import tarfile
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from harness.agent import checked
from harness.device.catalogue import find
from harness.errors import GuestError, SetupError, Unsupported, UsageError
from harness.kernel.packages import Kernel
from harness.machine import erofs
from harness.machine.console import distinct, scan
from harness.machine.snapshot import Snapshot
from harness.plan.session import CASE, Session
from harness.store import digest
from harness.values.case import Request
from harness.values.record import Finding
from harness.values.symptom import Symptom
from harness.values.upstream import Selection, UpstreamTest

SUITES = {"rdma-core": "python3-pyverbs"}
"""Source packages whose tests can be run, each with the binary package that decides the version."""

RECIPE = 2
ALSO = ("python3-scapy",)
"""Pure Python packages that tests import; the disk has them, the image does not."""

TESTS = "tests"
SLACK_S = 120.0
"""Beyond a test's own time, for a machine that is silent: loading all tests takes a while."""

MAX_CRASHES = 5
"""After so many crashed machines the rest is not run."""


@dataclass(frozen=True)
class Known:
    """A defect of stock kernels that a test may meet: `name` is its heading in docs/known-defects.md.

    It explains a failure of a test whose id matches `tests`, on one of `devices`, with a reason that matches
    `reason`, if the card's counter `evidence` is not 0. The test need not fail: such a defect is a race.
    """

    name: str
    tests: str
    devices: tuple[str, ...]
    reason: str
    evidence: str


KNOWN = (
    Known(
        "mlx5-implicit-child",
        "*.test_odp_implicit_*",
        ("connectx-7",),
        r"Completion status is (Local protection|Remote operation|Remote access|Work Request Flushed) ",
        "faults.failed",
    ),
)

Tell = Callable[[UpstreamTest, int], None]


@dataclass(frozen=True)
class UpstreamRun:
    """All tests with their last outcomes; symptoms on the consoles, findings of the card, ends of machines."""

    suite: str
    version: str
    kernel: str
    device: str
    tests: tuple[UpstreamTest, ...]
    findings: tuple[Finding, ...] = ()
    symptoms: tuple[Symptom, ...] = ()
    problems: tuple[str, ...] = ()

    def count(self, outcome: str) -> int:
        """Return how many tests have this outcome."""
        return sum(test.outcome == outcome for test in self.tests)

    @property
    def passed(self) -> bool:
        """True if no test failed but known failures, and nothing else is wrong."""
        return not (self.count("fail") or self.findings or self.symptoms or self.problems)

    def plain(self) -> dict[str, object]:
        """For --json."""
        counts = {"passed": self.count("pass"), "failed": self.count("fail"), "skipped": self.count("skip")}
        return {**counts, "known": self.count("known"), **asdict(self)}


def run(
    session: Session,
    suite: str,
    series: str,
    device: str,
    selection: Selection,
    tell: Tell,
    keep: Path | None = None,
) -> UpstreamRun:
    """Run them; a machine that crashes fails the test that ran, and the next machine continues after it.

    `tell` is called with each test as it ends. Console and conversation log of each machine are copied to `keep`.
    """
    version, disk = tests_disk(session, suite)
    kernel, snapshot = session.prepared(series, device, "real")
    seen = UpstreamRun(suite, version, kernel.release, device, ())
    number = selection.first
    for turn in range(MAX_CRASHES):
        with session.ledger.scratch_folder("upstream") as folder:
            try:
                part = _machine(
                    session, kernel, snapshot, disk, replace(selection, first=number), seen, tell, folder
                )
            finally:
                _keep(folder, find(device).log, keep, turn)
        seen = replace(
            seen,
            tests=seen.tests + part.tests,
            findings=seen.findings + part.findings,
            symptoms=distinct(seen.symptoms + part.symptoms),
            problems=seen.problems + part.problems,
        )
        if not part.problems:
            break
        if not part.tests:
            raise SetupError("no test was started", seen.problems)
        number = part.tests[-1].number + 1
    if not seen.tests:
        raise UsageError("no test matches", [f"-k {' -k '.join(selection.patterns)}"])
    return seen


def _machine(
    session: Session,
    kernel: Kernel,
    snapshot: Snapshot,
    disk: Path,
    selection: Selection,
    seen: UpstreamRun,
    tell: Tell,
    folder: Path,
) -> UpstreamRun:
    """Run one machine from the first test to the last, or to its crash."""
    device = find(seen.device)
    request = Request(CASE, "upstream", device.name, upstream=selection)
    tests: dict[int, UpstreamTest] = {}
    problems: tuple[str, ...] = ()
    reported = 0
    with device.around(session.host, kernel, folder) as presence:
        with session.machines.restore(snapshot, request, folder, plugged=device.plugged) as machine:

            def tick() -> None:
                nonlocal reported
                presence.check()
                news = machine.news()
                for test in news[reported:]:
                    tests[test.number] = test
                    tell(test, len(tests))
                reported = len(news)

            try:
                presence.plug(machine)
                machine.add_disk(disk, selection.disk)
                reply = machine.wait(selection.timeout_s + SLACK_S, tick)
                checked(reply)
            except GuestError as error:
                tick()
                problems = (error.render(),)
        device_report = presence.report()
        console = (folder / "console").read_text(errors="replace")
    return replace(
        seen,
        tests=tuple(
            explained(_ended(test, problems), device.name, device_report.counters) for test in tests.values()
        ),
        findings=device_report.findings,
        symptoms=scan(console.splitlines()),
        problems=problems,
    )


def _keep(folder: Path, log: str, into: Path | None, turn: int) -> None:
    if into is None:
        return
    into.mkdir(parents=True, exist_ok=True)
    for name in filter(None, ("console", log)):
        if (folder / name).is_file():
            shutil.copy(folder / name, into / f"{turn}-{name}")


def _ended(test: UpstreamTest, problems: Sequence[str]) -> UpstreamTest:
    """Fail a test that was running when the machine ended."""
    if test.outcome != "started":
        return test
    return replace(test, outcome="fail", reason=f"the machine ended: {problems[0].splitlines()[0]}")


def explained(test: UpstreamTest, device: str, counters: Mapping[str, int]) -> UpstreamTest:
    """Turn a failure that a defect in KNOWN explains into a known failure."""
    for known in KNOWN if test.outcome == "fail" else ():
        if (
            device in known.devices
            and fnmatch.fnmatchcase(test.name, known.tests)
            and re.search(known.reason, test.reason)
            and counters.get(known.evidence)
        ):
            return replace(test, outcome="known", reason=f"{known.name}: {test.reason}")
    return test


def tests_disk(session: Session, suite: str) -> tuple[str, Path]:
    """Return the version of the guest's package and a disk with the tests of its source, both from the archive."""
    folder = session.machines.image.disk.parent
    versions = json.loads((folder / "packages.json").read_text())
    package = SUITES[suite]
    if package not in versions:
        raise Unsupported(f"the image {session.machines.spec.name} has no {package}")
    # A binary rebuild has its source's version and +bN.
    version = str(versions[package]).partition("+b")[0]

    def make(into: Path) -> None:
        session.say(f"fetching the tests of {suite} {version}")
        suites = [session.machines.spec.suite, f"{session.machines.spec.suite}-security"]
        with tempfile.TemporaryDirectory(dir=into) as name:
            scratch = Path(name)
            sources = scratch / "sources"
            sources.mkdir()
            tarballs = session.archive.source(suite, version, suites, sources)
            _unpack_tests(tarballs, scratch / "root")
            session.archive.unpack(ALSO, scratch / "root")
            erofs.pack(session.host, scratch / "root", into / "tests.erofs")

    return version, session.store.built("upstream", digest(RECIPE, suite, version), make) / "tests.erofs"


def _unpack_tests(tarballs: Sequence[Path], into: Path) -> None:
    """Unpack upstream's tests/ folder; SetupError if the distribution patches it."""
    into.mkdir()
    for path in tarballs:
        with tarfile.open(path) as archive:
            for member in archive:
                inner = member.name.partition("/")[2]
                file = archive.extractfile(member) if member.isfile() else None
                if file is None or ".." in member.name.split("/"):
                    continue
                # By hand: the Python of Debian 12 knows no filters of extraction.
                if ".orig.tar" in path.name and inner.startswith(f"{TESTS}/"):
                    (into / inner).parent.mkdir(parents=True, exist_ok=True)
                    (into / inner).write_bytes(file.read())
                elif member.name.startswith("debian/patches/") and f"+++ b/{TESTS}/".encode() in file.read():
                    raise SetupError(f"{path.name} changes {TESTS}/", [member.name])
    if not (into / TESTS).is_dir():
        raise SetupError("the source package has no tests/", [path.name for path in tarballs])
