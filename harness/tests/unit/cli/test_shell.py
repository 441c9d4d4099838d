"""What `shell` makes of a script and of the answer to it; the machine is one of a list of pieces."""

import io
from contextlib import nullcontext
from types import SimpleNamespace

import pytest

from harness.agent import REQUEST_BYTES
from harness.cli import main, shell
from harness.errors import Crash
from harness.values.answer import Reply


class Session:
    """Lends a machine that prints `pieces`, a look between each, and ends with `end`."""

    def __init__(self, pieces, end):
        self.pieces, self.end, self.request = pieces, end, None

    def prepared(self, kernel, device, clock):
        return None, None

    def lend(self, kernel, snapshot, request, terminal, look):
        self.request = request
        for number in range(len(self.pieces) + 1):
            look(SimpleNamespace(printed=lambda since, n=number: self.pieces[since:n]))
        if isinstance(self.end, Exception):
            raise self.end
        return self.end


@pytest.fixture
def ask(monkeypatch):
    def run(script, session):
        stdin = io.TextIOWrapper(io.BytesIO(script))
        monkeypatch.setattr("sys.stdin", stdin)
        monkeypatch.setattr(shell, "open_session", lambda arguments: nullcontext(session))
        monkeypatch.setattr(shell, "lend", lambda opened, *args: opened.lend(*args))
        return main(["shell"])

    return run


def test_a_script_ends_as_it_ends(ask, capsys):
    """Mutations: 0; print only the reply's output, or each piece twice."""
    session = Session(["one\n", "two\n"], Reply(9, True, exit_status=7, output="one\ntwo\n"))
    assert ask(b"echo one; echo two; exit 7", session) == 7
    assert capsys.readouterr().out == "one\ntwo\n"
    assert session.request.argv == ("bash", "-c", "echo one; echo two; exit 7")


def test_an_agent_that_fails_is_no_success(ask, capsys):
    """Mutation: take its answer for the script's."""
    assert ask(b":", Session([], Reply(9, False, "no mlx5 RDMA device after 60 s", output="a log"))) == 3
    printed = capsys.readouterr().err
    assert "no mlx5 RDMA device after 60 s" in printed and "a log" in printed


def test_output_before_a_crash_is_printed(ask, capsys):
    """Mutation: print at the end."""
    assert ask(b":", Session(["one\n"], Crash("BUG: x", ("RIP: y",)))) == 1
    printed = capsys.readouterr()
    assert printed.out == "one\n" and "RIP: y" in printed.err


@pytest.mark.parametrize(
    ("script", "word"), [(b"x" * REQUEST_BYTES, "too long"), (b"echo \0", "byte 0")], ids=["long", "zero"]
)
def test_a_script_that_does_not_fit_is_refused_before_anything_is_built(ask, capsys, script, word):
    """Mutation: find out when the machine is there."""
    session = Session([], Reply(9, True))
    assert ask(script, session) == 2 and session.request is None
    assert word in capsys.readouterr().err


def test_any_bytes_are_a_script(ask):
    """Mutation: read it as text."""
    session = Session([], Reply(9, True))
    assert ask(b"echo \xff\xe9", session) == 0
    assert session.request.argv[2].encode("utf-8", "surrogateescape") == b"echo \xff\xe9"
