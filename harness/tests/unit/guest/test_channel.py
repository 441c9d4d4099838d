"""Requests: their format, the file in which they appear, and bad ones."""

import pytest

from harness import agent
from harness.guest import channel
from harness.values import codec
from harness.values.case import Case, PageLoss, Region, Request, Workload


def text_of(request, number=None):
    return (f"{request.number if number is None else number:08d}\n" + codec.dumps(request) + "\n").encode()


def test_request_is_parsed_back():
    case = Case(
        "c", "rxe0", Workload("read", 3, Region(1), Region(1), PageLoss("fork", "both"), 4096), seed=9
    )
    request = Request(7, "case", case=case)
    assert channel.parse(text_of(request).ljust(65536)) == request


@pytest.mark.parametrize(
    ("text", "number", "word"),
    [
        (b"", -1, "8 digits"),
        (b"0000001\n{}", -1, "8 digits"),
        (b"00000012{}", 12, "line of its own"),
        (b"000000123\n{}", 12, "line of its own"),
        (b"00000012\n{", 12, "not JSON"),
        (b"00000012\n{}", 12, "version"),
        (b"00000012\n\xff", 12, "utf-8"),
        (text_of(Request(5, "wait"), 6), 6, "first line says 6"),
    ],
)
def test_bad_request_keeps_its_number(text, number, word):
    """Mutation: raise BadRequest(-1, ...) everywhere: the host would wait for ever."""
    with pytest.raises(channel.BadRequest, match=word) as caught:
        channel.parse(text)
    assert caught.value.number == number


def test_only_a_new_number_is_a_request(tmp_path):
    """Mutation: drop `!= done` in RequestFile.next: the agent answers the same request for ever."""
    path = tmp_path / "raw"
    path.write_bytes(text_of(Request(1, "wait")).ljust(65536))
    polls = []

    def pause(_):
        polls.append(1)
        if len(polls) == 3:
            path.write_bytes(text_of(Request(2, "prepare", device="rxe0")).ljust(65536))

    file = channel.RequestFile(str(path), pause)
    number, text = file.next(0)
    assert number == 1
    number, text = file.next(1)
    file.close()
    assert len(polls) == 3
    assert channel.parse(text) == Request(2, "prepare", device="rxe0")


def test_no_more_is_read_than_the_request_is_long(tmp_path):
    """Mutation: read until the end of the file (slow on fw_cfg)."""
    path = tmp_path / "raw"
    long = Request(1, "exec", argv=("x" * 9000,))
    path.write_bytes(text_of(long).ljust(65536))
    file = channel.RequestFile(str(path))
    _, text = file.next(0)
    file.close()
    assert len(text) == 12288
    assert channel.parse(text) == long


@pytest.mark.parametrize("byte", [b" ", b"n", b"\\"])
def test_a_request_is_complete_wherever_it_is_split(tmp_path, byte):
    """A piece may end in any byte of the script. Mutation: take a space at a piece's end for the padding."""
    path = tmp_path / "raw"
    ended = 0
    for length in range(1, 60):
        script = "x" * length + "echo a b\\n\n" * 1000
        request = Request(1, "exec", argv=("bash", "-c", script))
        data = agent.encode_request(request)
        ended += byte in {data[at - 1 : at] for at in range(4096, len(data.rstrip()), 4096)}
        path.write_bytes(data)
        file = channel.RequestFile(str(path))
        _, text = file.next(0)
        file.close()
        assert channel.parse(text) == request
        assert len(text) < len(data.rstrip()) + 4097
    assert ended
