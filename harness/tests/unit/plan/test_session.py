from pathlib import Path

import pytest

from harness.errors import Crash, Hang, SetupError
from harness.plan.options import Options
from harness.plan.plan import Expect, Plan, Planned
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
def test_what_fails_before_any_case_is_a_record_and_happens_once(session, monkeypatch, error, verdict, kind):
    """Mutation: let the error through: no record of the case. Or boot again for the next case."""
    tried = []

    def prepare(*wanted):
        tried.append(wanted)
        raise error

    monkeypatch.setattr(session, "_prepare", prepare)
    for _ in range(2):
        record, logs = session.run(_planned())
        assert (record.verdict, [reason.kind for reason in record.reasons]) == (verdict, [kind])
        assert error.headline in record.reasons[0].text
    assert tried == [("7.3", "soft-roce", "exact", None)]
    if kind == "console":
        assert logs.console.splitlines() == list(PANIC)
        assert [symptom.kind for symptom in record.symptoms] == ["panic"]


def test_start_sweeps_the_cache(tmp_path):
    """Mutation: leave what a killed build left to the next build of the same key."""
    (tmp_path / "booted/.key.abcd1234").mkdir(parents=True)
    with Session(Options(cache=tmp_path)):
        assert list((tmp_path / "booted").iterdir()) == []
