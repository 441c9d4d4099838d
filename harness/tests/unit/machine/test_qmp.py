"""A machine's monitor."""

import pytest

from harness.errors import HarnessError, SetupError
from harness.machine.qmp import PATH_BYTES, Qmp


def test_a_cache_too_deep_for_sockets_is_told_at_once(tmp_path):
    """Mutation: try to connect until the deadline, then say that nobody answers."""
    socket = tmp_path / ("x" * PATH_BYTES)
    with pytest.raises(SetupError, match="too long a path for a socket") as told:
        Qmp(socket, lambda: HarnessError("gone"))
    assert "--cache" in told.value.hint
