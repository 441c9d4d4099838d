"""A person at a machine: only the end of gdb ends it."""

from types import SimpleNamespace

from harness.errors import Crash
from harness.plan import replay_gdb
from harness.values.answer import Answer, Reply


class Machine:
    """Answers at its third look, or dies at its second."""

    def __init__(self, dies=False):
        self.looks, self.commands, self.dies = 0, [], dies
        self.process = SimpleNamespace(poll=lambda: 1 if dies and self.looks > 1 else None)
        self.qmp = SimpleNamespace(command=self.commands.append)

    def reply(self):
        self.looks += 1
        return Reply(2, True, answer=Answer("a", "done")) if self.looks == 3 else None

    def diagnose(self):
        return Crash("BUG: x", [], "y") if self.dies else None


def watched(machine, monkeypatch, looks):
    monkeypatch.setattr(replay_gdb, "POLL_S", 0)
    messages, left = [], iter(range(looks))
    presence = SimpleNamespace(check=lambda: None)
    session = SimpleNamespace(say=messages.append)
    return replay_gdb._watch(session, machine, presence, lambda: next(left, None) is None), messages


def test_the_machine_is_stopped_when_the_case_has_answered(monkeypatch):
    """Mutations: let it run (gdb never comes back); end with the answer; stop it at every look."""
    machine = Machine()
    ended, messages = watched(machine, monkeypatch, 6)
    assert ended.answer.status == "done" and not ended.problem
    assert machine.commands == ["stop"] and messages == [replay_gdb.ENDED] and machine.looks == 3


def test_gdb_may_exit_before_the_case_ends(monkeypatch):
    """Mutation: wait for the answer."""
    machine = Machine()
    ended, messages = watched(machine, monkeypatch, 2)
    assert ended.answer is None and not machine.commands and not messages


def test_a_dead_machine_stays_until_gdb_exits(monkeypatch):
    """Mutations: take the prompt away with the machine; drop the console log."""
    machine = Machine(dies=True)
    ended, _ = watched(machine, monkeypatch, 9)
    assert ended.problem == "BUG: x; y" and machine.looks == 2
