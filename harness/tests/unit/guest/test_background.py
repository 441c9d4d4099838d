"""Work beside: it is waited for, and no longer than that."""

import errno
import threading

import pytest

from harness.guest.errors import WorkFailed
from harness.guest.scenarios.background import begin


def test_what_does_not_end_or_is_refused_is_told_of():
    """Mutations: wait without an end; forget what the kernel said."""
    never = threading.Event()
    with pytest.raises(WorkFailed, match="it goes: not done after 0.05 s"):
        begin("it goes", never.wait)(0.05)
    never.set()

    def refused():
        raise OSError(errno.EBUSY, "busy")

    with pytest.raises(WorkFailed, match="it goes: .*busy"):
        begin("it goes", refused)(5.0)
    begin("it goes", lambda: None)(5.0)
