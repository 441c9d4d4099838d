"""Commands that the agent runs: output is sent as it comes."""

import os
import time

from harness.guest import command
from harness.guest.__main__ import Agent
from harness.guest.errors import Unsupported
from harness.values.case import Request


def ran(script, **environment):
    output = []
    status = command.run(("sh", "-c", script), environment, output.append)
    return status, output


def test_output_is_sent_while_the_command_runs():
    """Mutation: read to the end first."""
    output = []
    began = time.monotonic()
    status = command.run(
        ("sh", "-c", "echo one; sleep 1; echo two >&2; exit 7"),
        {},
        lambda text: output.append((text, time.monotonic() - began)),
    )
    assert status == 7 and [text for text, _ in output] == ["one\n", "two\n"]
    assert output[1][1] - output[0][1] > 0.5


def test_environment_and_standard_input():
    """Mutation: hand it the agent's own standard input; drop the environment of the request, or the agent's."""
    assert ran('cat; echo "$WORD" "$PATH"', WORD="x") == (0, [f"x {os.environ['PATH']}\n"])


def test_a_letter_in_two_pieces_is_one():
    """Mutation: decode each piece alone."""
    _, output = ran(r"printf 'a\303'; sleep 0.3; printf '\251b'; sleep 0.3; printf '\303'")
    assert "".join(output) == "aéb�"


def test_a_killed_command_ends_as_in_a_shell():
    """Mutation: the negative status, of which a shell of ours makes 247."""
    assert ran("kill -9 $$") == (128 + 9, [])


def test_the_agent_waits_for_the_device_only_where_one_is_asked_for():
    """Mutation: begin without it; wait also where the machine has none."""

    class Cardless:
        waited = 0

        def wait(self):
            self.waited += 1
            raise Unsupported("no mlx5 RDMA device after 60 s")

    replies = []
    agent = Agent(replies.append)
    agent._target = prepared = Cardless()
    reply = agent.do(Request(3, "exec", argv=("echo", "x")))
    assert (reply.ok, prepared.waited, [news.printed for news in replies]) == (True, 0, ["x\n"])
    assert not replies[0].last and replies[0].number == 3
    reply = agent.do(Request(4, "exec", "connectx-5", argv=("echo", "x")))
    assert (reply.ok, reply.number, reply.problem) == (False, 4, "no mlx5 RDMA device after 60 s")
    assert prepared.waited == 1 and len(replies) == 1


def test_the_agent_runs_before_its_command_and_is_as_before_afterwards(monkeypatch):
    """Mutations: leave it at its priority; let its children inherit that."""
    calls = []
    before = os.sched_getscheduler(0)
    monkeypatch.setattr(os, "sched_setscheduler", lambda pid, policy, parameter: calls.append((pid, policy)))
    ran(":")
    assert calls == [(0, os.SCHED_FIFO | os.SCHED_RESET_ON_FORK), (0, before)]


def test_an_ordinary_user_runs_commands_too(monkeypatch):
    """Mutation: let the refusal through."""

    def refuse(*arguments):
        raise PermissionError

    monkeypatch.setattr(os, "sched_setscheduler", refuse)
    assert ran("echo x") == (0, ["x\n"])
