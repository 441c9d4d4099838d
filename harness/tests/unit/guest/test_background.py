"""Work in a thread: the wait for its end."""

import errno
import threading

import pytest

from harness.guest.errors import WorkFailed
from harness.guest.scenarios.background import begin


def test_timeout_and_oserror_are_raised():
    """Mutations: wait without a timeout; drop the kernel's error."""
    never = threading.Event()
    with pytest.raises(WorkFailed, match="it goes: not done after 0.05 s"):
        begin("it goes", never.wait)(0.05)
    never.set()

    def refused():
        raise OSError(errno.EBUSY, "busy")

    with pytest.raises(WorkFailed, match="it goes: .*busy"):
        begin("it goes", refused)(5.0)
    begin("it goes", lambda: None)(5.0)
