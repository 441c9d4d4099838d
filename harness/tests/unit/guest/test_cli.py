"""The command line for page faults of this machine, without a module."""

import errno

import pytest

from harness.guest.kmod import cli, odpnl
from harness.guest.kmod.odpnl_messages import Refused


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (FileNotFoundError(errno.ENOENT, "no"), "is not loaded here\n  try: odp-harness kmod load"),
        (Refused(errno.EPERM, "", ""), "not permitted\n  try: the same as root"),
        (
            Refused(errno.ENODEV, "no mlx5 card of that name", ""),
            "no mlx5 card of that name\n  try: odp-harness",
        ),
        (OSError(errno.ENODEV, "2 cards here"), "2 cards here"),
    ],
)
def test_errors_are_a_headline_and_a_hint(monkeypatch, capsys, error, text):
    """Mutation: let a traceback out, or call a missing module a missing file."""

    def refuse():
        raise error

    monkeypatch.setattr(odpnl, "Family", refuse)
    assert cli.main(["devices"]) == 3
    assert text in capsys.readouterr().err
