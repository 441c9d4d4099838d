"""A case on a target: what is offered, what is left of it, and in which order. No machine is started."""

from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import pytest

from harness.errors import Crash, SetupError
from harness.plan.options import Logs, Options
from harness.plan.plan import Expect, Plan, Planned
from harness.plan.runner import CaseRunner
from harness.plan.session import Session
from harness.plan.target import VmTarget, lend
from harness.values.answer import Answer, Reply
from harness.values.case import Case, Region, Request, Workload

KERNEL = SimpleNamespace(release="7.3.4")
SNAPSHOT = SimpleNamespace(key="k")


class Machines:
    """Restores machines that print a line and end as parametrized."""

    def __init__(self, end):
        self.end, self.requests, self.folders = end, [], []

    @contextmanager
    def restore(self, snapshot, request, folder, plugged, terminal, extra):
        assert snapshot is SNAPSHOT and not plugged and not extra
        self.requests.append(request)
        self.folders.append(folder)
        (folder / "console").write_text("a line\n")
        yield SimpleNamespace(wait=self._wait)

    def _wait(self, deadline_s, tick):
        if isinstance(self.end, Exception):
            raise self.end
        tick()
        return self.end


@pytest.fixture
def session(tmp_path):
    with Session(Options(cache=tmp_path)) as opened:
        yield opened


def _planned():
    plan = Plan(Path("x.toml"), "t", (), ("7.3",), ("soft-roce",), {}, {}, Expect(), ())
    return Planned(
        plan, "7.3", Case("x", "soft-roce", Workload("write", 1, Region(1), Region(1))), "exact", 1
    )


def test_a_case_is_offered_and_its_logs_outlive_the_folder(session):
    """Mutations: remove the folder before the logs are read; leave it behind; offer the case without a request."""
    answer = Answer("x", "done")
    session._machines = Machines(Reply(6, True, answer=answer))
    logs = Logs()
    attempt = CaseRunner(session)._once(_planned(), KERNEL, SNAPSHOT, logs)
    assert attempt.answer == answer and not attempt.failures
    assert logs.console == "a line\n"
    (request,), (folder,) = session._machines.requests, session._machines.folders
    assert (request.verb, request.case.id) == ("case", "x")
    assert not folder.exists()


def test_a_crash_is_a_reason_and_keeps_the_console(session):
    """Mutation: fill the logs only after an answer."""
    session._machines = Machines(Crash("Oops: 0002", ("Oops: 0002",), ""))
    logs = Logs()
    attempt = CaseRunner(session)._once(_planned(), KERNEL, SNAPSHOT, logs)
    assert attempt.answer is None and [reason.kind for reason in attempt.failures] == ["console"]
    assert logs.console == "a line\n"


def test_a_target_that_ends_keeps_the_console_and_raises(session):
    """Mutation: close the target only if it gave a reply."""
    session._machines = Machines(SetupError("QEMU ended"))
    logs = Logs()
    with pytest.raises(SetupError, match="QEMU ended"):
        CaseRunner(session)._once(_planned(), KERNEL, SNAPSHOT, logs)
    assert logs.console == "a line\n" and not session._machines.folders[0].exists()


def test_a_device_that_died_first_is_the_error(session, monkeypatch):
    """Mutation: raise the error of the machine, which only follows."""
    session._machines = Machines(SetupError("QEMU ended"))

    def check():
        raise SetupError("the card died first")

    with VmTarget(session, KERNEL, SNAPSHOT, "soft-roce") as target:
        monkeypatch.setattr(target, "attached", SimpleNamespace(plug=lambda machine: None, check=check))
        with pytest.raises(SetupError, match="the card died first"):
            target.offer(Request(7, "exec", "soft-roce"), 1)


def test_a_lent_machine_is_looked_at_while_it_runs(session):
    """Mutation: call `look` never."""
    session._machines = Machines(Reply(7, True, output="x"))
    seen = []
    reply = lend(session, KERNEL, SNAPSHOT, Request(7, "exec", "soft-roce"), look=seen.append)
    assert reply.output == "x" and len(seen) == 1
