"""The monitor of a machine."""

import pytest

from harness.errors import HarnessError, SetupError
from harness.machine.qmp import PATH_BYTES, Qmp


def test_a_path_too_long_for_a_socket_is_an_error_at_once(tmp_path):
    """Mutation: try to connect until the deadline."""
    socket = tmp_path / ("x" * PATH_BYTES)
    with pytest.raises(SetupError, match="too long a path for a socket") as caught:
        Qmp(socket, lambda: HarnessError("gone"))
    assert "--cache" in caught.value.hint
