from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from harness.errors import Crash, Hang, SetupError
from harness.machine import payload_disk
from harness.plan.checkout import files_below
from harness.plan.options import Options
from harness.plan.plan import Expect, Plan, Planned
from harness.plan.runner import CaseRunner
from harness.plan.session import Session
from harness.values.case import Case, Region, Workload

PANIC = (
    "init: no root",
    "Kernel panic - not syncing: VFS: Unable to mount root fs",
    "CPU: 0 PID: 1 Comm: swapper",
)


@pytest.fixture
def session(tmp_path):
    with Session(Options(cache=tmp_path)) as opened:
        yield opened


def _planned():
    plan = Plan(Path("x.toml"), "t", (), ("7.3",), ("soft-roce",), {}, {}, Expect(), ())
    return Planned(
        plan, "7.3", Case("x", "soft-roce", Workload("write", 1, Region(1), Region(1))), "exact", 1
    )


@pytest.mark.parametrize(
    ("error", "verdict", "kind"),
    [
        (Crash(PANIC[1], PANIC, "fingerprint: panic"), "fail", "console"),
        (Hang("no answer", ("console before:",)), "fail", "hang"),
        (SetupError("no mkfs"), "error", "setup"),
    ],
)
def test_a_failure_before_any_case_is_a_record_and_happens_once(session, monkeypatch, error, verdict, kind):
    """Mutation: let the error through: no record of the case. Or boot again for the next case."""
    tried = []

    def prepare(*arguments):
        tried.append(arguments)
        raise error

    monkeypatch.setattr(session, "_prepare", prepare)
    for _ in range(2):
        record, logs = CaseRunner(session).run(_planned())
        assert (record.verdict, [reason.kind for reason in record.reasons]) == (verdict, [kind])
        assert error.headline in record.reasons[0].text
    assert tried == [("7.3", "soft-roce", "exact", None)]
    if kind == "console":
        assert logs.console.splitlines() == list(PANIC)
        assert [symptom.kind for symptom in record.symptoms] == ["panic"]


def test_a_record_has_its_environment_even_if_no_machine_ran(session, monkeypatch, tmp_path):
    """Describe a machine also if it cannot be prepared.

    Mutations: leave out the digest of the payload disk (two builds of one module are one kernel then); name the empty
    disk; give no environment to a machine that could not be prepared; give it a clock.
    """
    session._qemu = SimpleNamespace(version="11")
    session._machines = SimpleNamespace(image=SimpleNamespace(digest="d"))
    session._kernels["7.3"] = SimpleNamespace(release="7.3.4+deb13-amd64", version="7.3.4-1")
    (tmp_path / "payload/modules").mkdir(parents=True)
    (tmp_path / "payload/modules/rdma_rxe.ko").write_bytes(b"x")
    with_payload = replace(session.options, payload=tmp_path / "payload")

    def environment_of(prepare, options):
        session.options = options
        monkeypatch.setattr(session, "_prepare", prepare)
        monkeypatch.setattr(session, "_failed", {})
        return CaseRunner(session).run(_planned())[0].environment

    def breaks(*arguments):
        raise Crash(PANIC[1], PANIC, "")

    def works(facts, key):
        disks = SimpleNamespace(payload=Path("payload") / key / "payload")
        shape = SimpleNamespace(clock="exact", accelerator="tcg")
        snapshot = SimpleNamespace(shape=shape, key="k", facts=facts, disks=disks)
        return lambda *arguments: (session._kernels["7.3"], snapshot)

    monkeypatch.setattr(CaseRunner, "_execute", lambda self, record, *more: record)
    before = environment_of(breaks, with_payload)
    assert (before["kernel"], before["series"], before["machine.payload"]) == (
        "7.3.4+deb13-amd64",
        "7.3",
        "rdma_rxe",
    )
    assert "clock" not in before
    digest = payload_disk.key(files_below(with_payload.payload))
    after = environment_of(works({"payload": "rdma_rxe"}, digest), with_payload)
    assert after.items() > before.items() and (after["payload"], after["clock"]) == (digest, "exact")
    plain = environment_of(works({}, "empty-128"), replace(with_payload, payload=None))
    assert not {"payload", "machine.payload"} & set(plain)
    (tmp_path / "payload/modules/rdma_rxe.ko").write_bytes(b"y")
    assert environment_of(breaks, with_payload)["payload"] != before["payload"]
