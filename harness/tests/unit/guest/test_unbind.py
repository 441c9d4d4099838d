"""A device that is to go: it is waited for, and no longer than that."""

import errno
import threading

import pytest

from harness.guest import unbind
from harness.guest.problems import WorkFailed


def test_a_device_that_does_not_go_is_told_of():
    """Mutations: wait without an end; forget what the kernel said."""
    never = threading.Event()
    with pytest.raises(WorkFailed, match="not gone after 0.05 s"):
        unbind._in_time(never.wait, 0.05)
    never.set()

    def refused():
        raise OSError(errno.EBUSY, "busy")

    with pytest.raises(WorkFailed, match="does not go: .*busy"):
        unbind._in_time(refused, 5.0)
    unbind._in_time(lambda: None, 5.0)
