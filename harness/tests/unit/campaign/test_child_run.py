"""Early stop of the pytest child of a campaign."""

from dataclasses import replace
from types import SimpleNamespace

from harness.campaign import child_run
from harness.campaign.child_run import ChildRun
from harness.campaign.question import RegressRequest
from harness.results.record import RunStore
from harness.tests.unit.results.sample import record
from harness.values.record import Reason


def follow(tmp_path, ended, failures=0):
    """Follow a run of records in `r`; return the result and the last message."""
    messages = [""]
    request = RegressRequest("q", "7.3", (), tmp_path, failures=failures)
    run = ChildRun(request, "patched", tmp_path / "r", (), (), False)
    result = child_run.follow(SimpleNamespace(say=messages.append), run, ended)
    return result, messages[-1]


def test_a_run_stops_after_two_hangs(tmp_path, monkeypatch):
    """Four timeouts are eight minutes. Mutations: count known hangs; wait for the end."""
    monkeypatch.setattr(child_run, "POLL_S", 0.0)
    store = RunStore.create(tmp_path / "r", {}, expected=20)
    hung = (Reason("hang", "no answer to request 3 (case) within 120 s"),)
    polls = iter(range(100))

    def ended():
        poll = next(polls)
        store.add(replace(record(poll, "known" if poll < 3 else "fail"), reasons=hung))
        return poll == 9

    stopped, message = follow(tmp_path, ended)
    assert stopped and next(polls) == 5 and "2 cases hung" in message


def test_a_run_stops_after_the_limit_of_failures(tmp_path, monkeypatch):
    """Mutations: count unexpected passes; leave it to pytest, which counts those, too."""
    monkeypatch.setattr(child_run, "POLL_S", 0.0)
    store = RunStore.create(tmp_path / "r", {}, expected=20)
    unexpected, leak = (Reason("known", "did not fail: is it mended?"),), (Reason("leak", "MR"),)
    polls = iter(range(100))

    def ended():
        poll = next(polls)
        store.add(replace(record(poll, "fail"), reasons=unexpected if poll < 6 else leak))
        return poll == 12

    assert follow(tmp_path, ended, 4)[0]
    assert next(polls) == 10
