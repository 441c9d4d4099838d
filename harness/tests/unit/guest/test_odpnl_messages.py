"""The numbers of kmod's netlink family in C and in Python, and refusals."""

import errno
import re
import struct
from pathlib import Path

import pytest

from harness.guest.kmod import odpnl_messages as odpnl

HEADER = (Path(__file__).parents[4] / "kmod/uapi/mlx5_odp_test.h").read_text()


def enum(name):
    """Return the members of an enum of the header, in order, without __ end markers."""
    body = re.search(rf"enum {name} {{(.*?)}};", HEADER, re.S).group(1)
    body = re.sub(r"/\*.*?\*/", "", body, flags=re.S)
    return [word.strip() for word in body.split(",") if word.strip() and not word.strip().startswith("__")]


@pytest.mark.parametrize(
    "name, prefix, ours",
    [
        ("odp_test_attr", "ODP_TEST_A_", ["UNSPEC", "PAD", *odpnl.NAMES.values()]),
        ("odp_test_form", "ODP_TEST_FORM_", odpnl.FORMS),
        ("odp_test_mode", "ODP_TEST_MODE_", odpnl.MODES),
        ("odp_test_selector", "ODP_TEST_SELECT_", odpnl.SELECTORS),
        ("odp_test_action", "ODP_TEST_ACTION_", odpnl.ACTIONS),
        ("odp_test_source", "ODP_TEST_SOURCE_", odpnl.SOURCES),
        ("odp_test_stat", "ODP_TEST_STAT_", ["unspec", *odpnl.STATS]),
    ],
)
def test_numbers_are_those_of_the_header(name, prefix, ours):
    """Mutation: swap two attributes, actions or statistics in odpnl or in the header."""
    assert [word.removeprefix(prefix).lower() for word in enum(name)] == [word.lower() for word in ours]


def test_commands_are_those_of_the_header():
    words = [word.removeprefix("ODP_TEST_CMD_") for word in enum("odp_test_cmd")]
    assert [getattr(odpnl, word) for word in words[1:]] == list(range(1, 8))


def test_refusal_has_the_message_of_the_module():
    """Mutation: look for the attributes right behind the errno, without CAP_ACK's header."""
    text = b"no mlx5 card of that name\0"
    tail = struct.pack("=HH", 4 + len(text), 1) + text + bytes(-len(text) % 4) + struct.pack("=HHI", 8, 2, 20)
    data = (
        struct.pack("=IHHII", 36 + len(tail), 2, 0x300, 1, 0) + struct.pack("=i", -errno.ENODEV) + bytes(16)
    )
    with pytest.raises(odpnl.Refused) as caught:
        odpnl.raise_refusal(data + tail)
    assert (caught.value.errno, caught.value.words) == (errno.ENODEV, "no mlx5 card of that name")
    assert caught.value.attribute == "offset 20"
