"""The card as a process: options, signals, parent, paths, and a conversation without a VM."""

import json
import shlex
import signal
import socket
import subprocess
import sys

import pytest

from harness.connectx.transport.client import Client
from harness.connectx.transport.control import ControlClient
from harness.connectx.transport.qemu_options import (
    device,
    qemu_options,
)
from harness.tests.unit.wire.kernels import FOLDERS

needs_headers = pytest.mark.skipif(not FOLDERS, reason="ODP_KERNEL_HEADERS names no unpacked kernel headers")


def start(folder, *options, headers=None, **how):
    words = [sys.executable, "-m", "harness.connectx", "--socket", folder / "s", "--control", folder / "c"]
    words += ["--headers", headers or FOLDERS[-1], *options]
    return subprocess.Popen(
        [str(word) for word in words], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **how
    )


@pytest.fixture
def card(tmp_path):
    process = start(tmp_path)
    process.options = process.stdout.readline()
    yield process
    process.kill()
    process.communicate()


def attach(path):
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    connection.connect(str(path))
    client = Client(connection)
    client.hello()
    return client


@needs_headers
def test_a_card_is_served(card, tmp_path):
    """Mutation: print the options before the sockets are there."""
    assert shlex.split(card.options) == qemu_options(tmp_path / "s")
    client = attach(tmp_path / "s")
    assert client.read(7, 0, 4) == b"\xb3\x15\x17\x10"
    assert client.read(0, 4, 4)[:2] == b"\0\x05", "command interface revision"
    assert ControlClient(tmp_path / "c").ask("ping")["attached"]
    client.close()


@needs_headers
@pytest.mark.parametrize("how", ["SIGTERM", "SIGINT", "quit"])
def test_a_signal_removes_the_sockets_and_is_reported(card, tmp_path, how):
    """Mutation: leave the sockets; end with a traceback."""
    client = attach(tmp_path / "s")
    if how == "quit":
        ControlClient(tmp_path / "c").ask("quit")
    else:
        card.send_signal(getattr(signal, how))
    _, errors = card.communicate(timeout=10)
    assert card.returncode == 0
    assert "card: ends: " in errors and "Traceback" not in errors
    assert list(tmp_path.iterdir()) == []
    client.close()


@needs_headers
def test_the_card_ends_with_its_parent(tmp_path):
    """Mutation: watch our own process instead."""
    parent = subprocess.Popen(["sleep", "60"])
    process = start(tmp_path, "--parent", parent.pid)
    process.stdout.readline()
    parent.kill()
    parent.wait()
    _, errors = process.communicate(timeout=10)
    assert f"process {parent.pid} ended" in errors
    assert list(tmp_path.iterdir()) == []


@needs_headers
def test_the_card_ends_with_its_last_control_client(tmp_path):
    """Mutation: end when the first of two leaves."""
    process = start(tmp_path, "--with-control")
    process.stdout.readline()
    first, second = ControlClient(tmp_path / "c"), ControlClient(tmp_path / "c")
    first.ask("ping")
    first.close()
    second.ask("ping")
    second.close()
    _, errors = process.communicate(timeout=10)
    assert "the last control client left" in errors


@needs_headers
def test_a_taken_path(card, tmp_path):
    """The first card continues. Mutation: replace its socket."""
    second = start(tmp_path)
    _, errors = second.communicate(timeout=10)
    assert second.returncode == 2
    assert "is taken" in errors and "Traceback" not in errors
    attach(tmp_path / "s").close()


@pytest.mark.parametrize("options", [["--model", "connectx-9"], ["--parent", "999999999"], []])
def test_usage_errors(tmp_path, options):
    """Mutation: print a traceback; leave sockets behind."""
    headers = FOLDERS[-1] if FOLDERS and options else tmp_path
    process = start(tmp_path, *options, headers=headers)
    _, errors = process.communicate(timeout=20)
    assert process.returncode in (2, 3)
    assert "Traceback" not in errors and errors.strip()
    assert list(tmp_path.iterdir()) == []


def test_options_for_qemu():
    """Mutation: leave share=on out."""
    words = qemu_options("/tmp/card", "2G")
    assert any("share=on" in word and "size=2G" in word for word in words)
    assert any("pref64-reserve" in word for word in words)
    assert json.loads(words[-1])["socket"] == {"type": "unix", "path": "/tmp/card"}
    assert device("/tmp/card", posted=False)["x-no-posted-writes"] is True
