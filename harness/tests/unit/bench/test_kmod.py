"""The benchmark of the kernel module, from the reports of three machines."""

from dataclasses import replace

import pytest

from harness.bench import kmod
from harness.errors import SetupError
from harness.values.answer import Answer
from harness.values.module import ModuleReport
from harness.values.record import Record

REPORTS = {
    "odp2015-handler": ModuleReport(answer_ns=tuple(range(1000, 101_000, 1000))),
    "odp2015-events": ModuleReport({"events": 10_005, "lost_memory": 0}, heard=10_001, span_ns=2_000_000_000),
    "odp2015-observe": ModuleReport({"observed": 50, "probe_ns": 150_049}),
}


class Session:
    """Answer each case with the report of its plan."""

    def __init__(self):
        self.cases = []

    def say(self, line):
        pass

    def run(self, planned):
        self.cases.append(planned)
        answer = Answer(planned.case.id, "done", module=REPORTS[planned.plan.name])
        record = Record(
            planned.plan.name, planned.case, "pass", answer=answer, environment={"kernel": "7.3.4"}
        )
        return record, None


@pytest.fixture(autouse=True)
def runner(monkeypatch):
    monkeypatch.setattr(kmod, "CaseRunner", lambda session: session)


def test_each_metric_comes_from_its_machine():
    """Mutations: count lost events as received; divide by the rounds; take times of the wrong machine."""
    session = Session()
    result = kmod.measure(session, "newest", "connectx-5", 30)
    assert (result.handler_p50_us, result.handler_p99_us, result.answers) == (50.0, 99.0, 100)
    assert (result.events_per_s, result.lost, result.observe_instructions_per_fault) == (5000, 4, 3000)
    handler, streamed, observed = session.cases
    assert handler.case.workload.rounds == 30 and handler.clock == streamed.clock == "real"
    assert [rule.events for rule in streamed.case.rules if rule.kind == "drawn-events"] == [kmod.BURST]
    assert streamed.case.module.policies[0].action == "resume"
    assert observed.clock == "exact" and not observed.case.trace
    assert set(result.plain()) >= {"handler_p50_us", "handler_p99_us", "events_per_s", "lost"}


def test_a_case_that_does_not_run_is_an_error(monkeypatch):
    """Mutation: divide by nothing."""
    session = Session()
    good = session.run
    monkeypatch.setattr(session, "run", lambda planned: (replace(good(planned)[0], answer=None), None))
    with pytest.raises(SetupError, match="did not run"):
        kmod.measure(session, "newest", "connectx-5")
