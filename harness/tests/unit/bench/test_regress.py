"""What `bench regress` makes of verdicts."""

from types import SimpleNamespace

import pytest

from harness.bench import regress
from harness.bench.figures import Stopped
from harness.campaign.runs import RegressRequest
from harness.kernel.subsystems import RXE

SAME, ALARM = regress._Judged(30.0, 2, "", True), regress._Judged(50.0, 2, "comment 1: worse: by 9", False)


def measured(monkeypatch, tmp_path, judged, changes):
    """Of verdicts that are known; an exception among them is raised."""
    given = iter(judged)

    def next_one(*_):
        found = next(given)
        if isinstance(found, BaseException):
            raise found
        return found

    monkeypatch.setattr(regress, "source", lambda kernel, archive: tmp_path)
    monkeypatch.setattr(regress, "modules", lambda *_: ({}, "gcc"))
    monkeypatch.setattr(regress, "answers", lambda *_: ())
    monkeypatch.setattr(regress.noise, "bands", lambda *_: {"fault": 3.0})
    monkeypatch.setattr(regress, "_make", lambda *_: 10.0)
    monkeypatch.setattr(regress, "_judged", next_one)
    session = SimpleNamespace(
        kernel=lambda series: SimpleNamespace(release="7.3.4"), archive=None, say=lambda line: None
    )
    return regress.measure(session, RegressRequest("null", "7.3", [], tmp_path), RXE, changes)


def test_alarms_are_counted_and_told(monkeypatch, tmp_path):
    """Mutation: count those that a second build took back as alarms; take the ratio to one make."""
    found = measured(monkeypatch, tmp_path, [SAME, ALARM, SAME], 3)
    assert (found.null_changes, found.false_alarms, found.unconfirmed) == (3, 1, 2)
    assert found.alarms == ("comment 1: worse: by 9",)
    assert found.make_s == 20.0 and found.ratio_to_make == 1.5


def test_ctrl_c_loses_no_verdict(monkeypatch, tmp_path):
    """Mutation: say that all changes were judged."""
    with pytest.raises(Stopped) as caught:
        measured(monkeypatch, tmp_path, [SAME, ALARM, KeyboardInterrupt()], 50)
    assert (caught.value.figures.null_changes, caught.value.figures.false_alarms) == (2, 1)


def test_ctrl_c_before_the_first_is_only_that(monkeypatch, tmp_path):
    """Mutation: the median of nothing."""
    with pytest.raises(KeyboardInterrupt) as caught:
        measured(monkeypatch, tmp_path, [KeyboardInterrupt()], 50)
    assert not isinstance(caught.value, Stopped)
