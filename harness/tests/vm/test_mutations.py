"""Mutated guests: each edit of the shipped guest code makes a case fail, for its own reason.

All edits travel in one bundle, each awake only in the case that has its name: one boot and one preparation
serve them all, and the case with another name shows that the bundle is sound otherwise.
"""

import os
import subprocess
import sys
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from harness import agent
from harness.device.catalogue import DEVICES
from harness.plan.options import Options
from harness.plan.plan import Expect, Plan, Planned
from harness.plan.runner import CaseRunner
from harness.plan.session import Session
from harness.results.record import exit_status, read_run
from harness.tests.vm.conftest import CHECKOUT
from harness.values.case import Case, PageLoss, Region, Workload

PAGES = 7
PANICS = "odp-write/newest/soft-roce/local"


@dataclass(frozen=True)
class Edit:
    """One small edit of a shipped file: `old`, there exactly once, becomes `new`.

    The case named `case` must then fail for reasons of `kind`, one of which contains `text`.
    """

    case: str
    file: str
    old: str
    new: str
    kind: str
    text: str
    device: str = "soft-roce"


EDITS = (
    Edit(
        "probe-dropped",
        "cases.py",
        "            tracer.start(",
        '            if case.id == "probe-dropped":\n'
        '                tracer._bpf.detach_kprobe(event="rxe_ib_invalidate_range")\n'
        "            tracer.start(",
        "count",
        "invalidations_remote: expected 2 ",
    ),
    Edit(
        "card-probe-dropped",
        "cases.py",
        "            tracer.start(",
        '            if case.id == "card-probe-dropped":\n'
        '                tracer._bpf.detach_kprobe(event="mlx5_ib_page_fault_resume")\n'
        "            tracer.start(",
        "count",
        "resumes: expected 2 ",
        "connectx-5",
    ),
    Edit(
        "page-fewer",
        "rounds.py",
        "            posts = self.pattern.prepare(self.connection, local, remote)\n",
        "            posts = self.pattern.prepare(self.connection, local, remote)\n"
        '            if self.case.id == "page-fewer":\n'
        "                from types import SimpleNamespace as Short\n"
        "                shorter = Short(region=Short(length=local.memory.region.length - 4096))\n"
        "                short = Short(memory=shorter, registration=local.registration)\n"
        "                posts = self.pattern.prepare(self.connection, short, remote)\n",
        "count",
        f"faults_remote: expected {2 * PAGES} ",
    ),
    Edit(
        "byte-flipped",
        "rounds.py",
        "            self.pattern.moves(local.memory, remote.memory)\n",
        "            self.pattern.moves(local.memory, remote.memory)\n"
        '            if self.case.id == "byte-flipped" and number == 2:\n'
        "                __import__('ctypes').c_ubyte.from_address(remote.memory.start + 4096).value ^= 1\n",
        "data",
        "remote, round 2, region byte 4096: expected 00",
    ),
    Edit(
        "qp-left",
        "rounds.py",
        "        stack.callback(self.connection.close)\n",
        '        if case.id == "qp-left":\n'
        "            # The first of the two queue pairs, and its queues.\n"
        "            self.kept, self.connection._open = self.connection._open[:4], self.connection._open[4:]\n"
        "        stack.callback(self.connection.close)\n",
        "leak",
        "QP: ",
    ),
    Edit(
        "panic",
        "rounds.py",
        "        child = self._make_absent()\n",
        f'        if self.case.id in ("panic", "{PANICS}") and number == 2:\n'
        '            __import__("pathlib").Path("/proc/sysrq-trigger").write_text("c")\n'
        "        child = self._make_absent()\n",
        "console",
        "sysrq_handle_crash",
    ),
    Edit(
        "spin",
        "rounds.py",
        "        child = self._make_absent()\n",
        '        while self.case.id == "spin" and number == 2:\n            pass\n'
        "        child = self._make_absent()\n",
        "hang",
        "no reply to request",
    ),
)

# A page that is not sent is not there either.
ALSO = {"page-fewer": {"data"}}


agent_bundle = agent.bundle


def mutated():
    """Return the bundle with all edits, each of which applied exactly once."""
    files = agent_bundle()
    for edit in EDITS:
        path = f"harness/guest/{edit.file}"
        text = files[path].decode()
        assert text.count("\n" + edit.old) == 1, f"{edit.case}: {edit.old!r} is not once in {path}"
        text = text.replace(edit.old, edit.new)
        compile(text, path, "exec")
        files[path] = text.encode()
    return files


@contextmanager
def mutants():
    """Make machines from the mutated bundle inside the block."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(agent, "bundle", mutated)
        yield


def planned(name, deadline_s=120, device="soft-roce"):
    """Plan a small case: two rounds of a write to PAGES absent pages."""
    region = Region(PAGES * 4096)
    workload = Workload("write", 2, region, region, PageLoss("dontneed", "remote"), mtu_bytes=4096)
    case = Case(name, device, workload)
    plan = Plan(Path("mutant.toml"), "t", (), ("newest",), (device,), {}, {}, Expect(), ())
    return Planned(plan, "newest", case, DEVICES[device].clock, deadline_s)


@pytest.fixture(scope="module")
def run_mutant(session):
    """Return a function that runs a case on a mutated guest, in a session of its own on the same cache."""
    with Session(Options(cache=session.store.root), print) as own:

        def run(name, deadline_s=120, device="soft-roce"):
            with mutants():
                return CaseRunner(own).run(planned(name, deadline_s, device))

        yield run


def test_inactive_edits_change_nothing(run_mutant):
    """Run a case for which no edit is active: cases below fail for their edits only."""
    record, logs = run_mutant("sound")
    assert (record.verdict, record.reasons) == ("pass", ()), logs.console[-2000:]


@pytest.mark.parametrize("edit", EDITS, ids=lambda edit: edit.case)
def test_mutant_fails_for_its_own_reason(run_mutant, session, edit):
    """Apply the mutation, which is the edit; the same case on the real guest passes next."""
    record, logs = run_mutant(edit.case, 20 if edit.case == "spin" else 120, edit.device)
    kinds = {reason.kind for reason in record.reasons}
    assert record.verdict == "fail", record.reasons
    assert kinds - ALSO.get(edit.case, set()) == {edit.kind}, record.reasons
    assert any(edit.text in reason.text for reason in record.reasons), record.reasons
    if edit.case == "panic":
        assert record.symptoms[0].fingerprint.startswith("panic sysrq triggered crash: sysrq_handle_crash")
    if edit.case == "spin":
        assert record.wall_s < 60
        assert "Comm: python3" in logs.console
    record, _ = CaseRunner(session).run(planned(edit.case, device=edit.device))
    assert (record.verdict, record.reasons) == ("pass", ())


def test_other_cases_run_after_a_panic(session, run_mutant, tmp_path):
    """Mutation: let a crash end the run: no record of the cases after it."""
    program = (
        "import sys; from harness.tests.vm.test_mutations import mutants; from harness.cli import main\n"
        "with mutants(): sys.exit(main())"
    )
    argv = [sys.executable, "-c", program, "run", "-j", "1", "--cache", str(session.store.root)]
    argv += [
        "--device",
        "soft-roce",
        "--results",
        str(tmp_path / "r"),
        "testplans/odp-write.toml",
        "testplans/odp-mixed.toml",
    ]
    environment = {**os.environ, "PYTHONPATH": str(CHECKOUT)}
    done = subprocess.run(argv, cwd=CHECKOUT, env=environment, capture_output=True, text=True, timeout=600)
    assert done.returncode == 1, done.stdout + done.stderr
    records = {record.case.id: record for record in read_run(tmp_path / "r").records}
    assert {name for name, record in records.items() if record.verdict != "pass"} == {PANICS}
    assert len(records) == 5
    assert [reason.kind for reason in records[PANICS].reasons] == ["console"]
    assert "sysrq_handle_crash" in (tmp_path / "r" / records[PANICS].log).read_text()
    assert exit_status(list(records.values())) == 1
    assert f"fail  {PANICS}" in done.stdout
    assert "FAILED: 4 passed, 1 failed" in done.stdout
