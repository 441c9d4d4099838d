import pytest

from harness import agent
from harness.errors import SetupError
from harness.values import codec
from harness.values.answer import Reply
from harness.values.case import Request


def test_request_has_fixed_size_and_reads_back():
    """Mutation: leave the padding off."""
    text = agent.encode_request(Request(7, "exec", argv=("uname",)))
    assert len(text) == agent.REQUEST_BYTES
    number, line = text.decode().split("\n")[:2]
    assert number == "00000007"
    assert codec.loads(Request, line).argv == ("uname",)


def test_request_that_does_not_fit_is_refused():
    """Mutation: cut it."""
    with pytest.raises(SetupError, match="carries"):
        agent.encode_request(Request(1, "exec", argv=("x" * agent.REQUEST_BYTES,)))


def test_half_a_reply_waits_and_rubbish_is_an_error():
    """Mutation: parse the last line although it has no end yet."""
    line = codec.dumps(Reply(1, True))
    assert [r.number for r in agent.decode_replies(line + "\n" + line[:20])] == [1]
    with pytest.raises(SetupError, match="no reply"):
        list(agent.decode_replies("Traceback (most recent call last)\n"))


def test_bundle_has_all_that_the_guest_imports():
    """Mutation: forget a room."""
    files = agent.bundle()
    for path in (
        "harness/__init__.py",
        "harness/values/codec.py",
        "harness/guest/__main__.py",
        "pyroute2/__init__.py",
    ):
        assert path in files
    assert not any(path.startswith("harness/plan") for path in files)


def test_a_reply_that_is_not_ok_is_an_error():
    """Mutation: hand it on: a script that did not run ended well."""
    with pytest.raises(SetupError, match="the agent failed: bad request") as caught:
        agent.checked(Reply(1, False, "bad request", output="one\ntwo"))
    assert caught.value.evidence == ("one", "two")
    assert agent.checked(Reply(1, True, exit_status=7)).exit_status == 7
