"""Memory reclaimed from a control group."""

import errno
from pathlib import Path

import pytest

from harness.guest.mm import cgroup


@pytest.mark.parametrize(("number", "raises"), [(errno.EAGAIN, False), (errno.EINVAL, True)])
def test_eagain_of_a_reclaim_is_no_error(monkeypatch, number, raises):
    """Mutation: suppress every error."""

    def write_text(path, text):
        raise OSError(number, text)

    monkeypatch.setattr(Path, "write_text", write_text)
    if raises:
        with pytest.raises(OSError, match="4096"):
            cgroup.reclaim(4096)
    else:
        cgroup.reclaim(4096)
