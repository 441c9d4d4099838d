"""What `bench regress` counts of the verdicts on no-op changes."""

from types import SimpleNamespace

import pytest

from harness.bench import regress
from harness.bench.measurement import Stopped
from harness.campaign.builds import BuiltModules
from harness.campaign.question import RegressRequest
from harness.kernel.subsystems import RXE

QUIET = regress._Verdict(30.0, 2, "", True)
ALARM = regress._Verdict(50.0, 2, "comment 1: regression: by 9", False)


def measured(monkeypatch, tmp_path, verdicts, changes):
    """Measure with these verdicts; an exception among them is raised."""
    rest = iter(verdicts)

    def next_one(*_):
        verdict = next(rest)
        if isinstance(verdict, BaseException):
            raise verdict
        return verdict

    monkeypatch.setattr(regress, "source", lambda kernel, archive: tmp_path)
    monkeypatch.setattr(regress, "build_modules", lambda *_, **options: BuiltModules({}, "gcc", {}))
    monkeypatch.setattr(regress, "run_cases", lambda *_: ())
    monkeypatch.setattr(regress.noise, "noise_bands", lambda *_: {"fault median": 3.0})
    monkeypatch.setattr(regress, "_make", lambda *_: 10.0)
    monkeypatch.setattr(regress, "_verdict", next_one)
    session = SimpleNamespace(
        kernel=lambda series: SimpleNamespace(release="7.3.4"), archive=None, say=lambda line: None
    )
    return regress.measure(session, RegressRequest("noop", "7.3", [], tmp_path), RXE, changes)


def test_alarms_are_counted_and_listed(monkeypatch, tmp_path):
    """Mutations: count unconfirmed differences as alarms; take the ratio to one make."""
    result = measured(monkeypatch, tmp_path, [QUIET, ALARM, QUIET], 3)
    assert (result.noop_changes, result.false_alarms, result.unconfirmed) == (3, 1, 2)
    assert result.alarms == ("comment 1: regression: by 9",)
    assert result.make_s == 20.0 and result.ratio_to_make == 1.5


def test_ctrl_c_keeps_the_verdicts_so_far(monkeypatch, tmp_path):
    """Mutation: report that all changes were tested."""
    with pytest.raises(Stopped) as caught:
        measured(monkeypatch, tmp_path, [QUIET, ALARM, KeyboardInterrupt()], 50)
    assert (caught.value.measurement.noop_changes, caught.value.measurement.false_alarms) == (2, 1)


def test_ctrl_c_before_the_first_verdict_has_no_measurement(monkeypatch, tmp_path):
    """Mutation: take the median of no verdict."""
    with pytest.raises(KeyboardInterrupt) as caught:
        measured(monkeypatch, tmp_path, [KeyboardInterrupt()], 50)
    assert not isinstance(caught.value, Stopped)
