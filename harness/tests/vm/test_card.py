"""The emulated card in real machines: probe and unload, and what is said when a part dies or cannot start."""

import os
import shlex
import signal
import socket
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from harness.connectx.transport.control import ControlClient
from harness.device.catalogue import DEVICES
from harness.errors import SetupError
from harness.kernel.packages import SERIES
from harness.plan.caps import ask
from harness.plan.plan import load
from harness.tests.vm.conftest import FULL
from harness.values.case import Request

CHECKOUT = Path(__file__).parents[3]
APPEARS_TWICE = """
seen() { ls /sys/class/infiniband | grep -q .; }
for turn in 1 2; do
    until seen; do sleep 0.1; done
    echo "<1>card seen $turn" > /dev/kmsg
    [ $turn = 2 ] || while seen; do sleep 0.1; done
done
# A device is there a moment before its port is.
until ls /sys/class/infiniband/*/ports/1/state >/dev/null 2>&1; do sleep 0.1; done
cat /sys/class/infiniband/*/ports/1/state
"""


@pytest.fixture(scope="module")
def prepared(session):
    return session.prepared("newest", "connectx-5", "real")


@contextmanager
def plugged(session, prepared, folder, *argv):
    """A card and a machine that runs `argv` with it."""
    kernel, snapshot = prepared
    request = Request(9, "exec", "connectx-5", argv=argv)
    with (
        DEVICES["connectx-5"].around(session.host, kernel, folder) as card,
        session.studio.restore(snapshot, request, folder, plugged=True) as machine,
    ):
        card.plug(machine)
        yield card, machine


@pytest.fixture
def folder(session):
    with session.ledger.scratch_folder("card") as made:
        yield made


@pytest.mark.parametrize("model", ["connectx-5", "connectx-7"])
def test_drivers_probe_and_unload(session, model):
    """Mutation: keep one page at teardown (connectx.pages)."""
    planned = next(load(CHECKOUT / "testplans/mlx5-probe.toml").cases(("newest",), devices=(model,)))
    case = replace(planned.case, workload=replace(planned.case.workload, rounds=2))
    record, logs = session.run(replace(planned, case=case))
    assert (record.verdict, record.reasons) == ("pass", ())
    assert record.device_report.findings == () and record.device_report.unknown == ()
    assert record.device_report.counters["commands.ENABLE_HCA"] == 3
    assert record.device_report.counters["commands.DISABLE_HCA"] == 2
    assert logs.card[:2] == b"\x1f\x8b", "the conversation is a whole gzip file"


def test_verbs_report_what_the_firmware_states(session):
    """So does the kernel module. Mutation: leave `read` out of the card's transport capabilities, or the scheme out of
    the counters, or ask the page of another scheme (kmod/caps.c)."""
    found = ask(session, "newest", "connectx-7")
    assert found.scheme == "memory"
    for transport in ("rc", "ud"):
        # verbs and firmware have two words of their own
        stated = {w.replace("receive", "recv") for w in found.firmware["memory"][transport]}
        assert set(found.verbs[transport]) == stated
    stated = {row: set(words) for row, words in found.firmware["memory"].items() if row != "general"}
    for page in ("max", "cur"):
        assert {row: set(words) for row, words in found.module[f"{page}.memory"].items()} == stated


def test_killed_card_is_named_as_first_to_die(session, prepared, folder):
    """QEMU aborts when its device dies. Mutation: ask QEMU first."""
    kernel, snapshot = prepared
    request = Request(9, "exec", "connectx-5", argv=("sleep", "60"))
    with DEVICES["connectx-5"].around(session.host, kernel, folder) as card:
        killer = threading.Timer(2.0, card.process.kill)
        killer.start()
        try:
            with pytest.raises(SetupError, match="the card connectx-5 died first, with status -9"):
                session.offer(snapshot, request, folder, card, 60)
        finally:
            killer.cancel()


def test_killed_qemu_is_named(session, prepared, folder):
    """The card lives on. Mutation: let the card end with its client."""
    with plugged(session, prepared, folder, "sleep", "60") as (card, machine):
        os.kill(machine.process.pid, signal.SIGKILL)
        with pytest.raises(SetupError, match="QEMU ended by itself with status -9"):
            machine.wait(60, card.check)
        assert card.report().findings == ()


def test_card_is_unplugged_and_comes_back(session, prepared, folder):
    """Mutation: show QEMU the MSI-X capability (connectx.msix): QEMU aborts."""
    with plugged(session, prepared, folder, "sh", "-c", APPEARS_TWICE) as (card, machine):
        _wait_for(machine, "card seen 1")
        card.unplug(machine)
        card.plug(machine)
        reply = machine.wait(60, card.check)
        assert "ACTIVE" in reply.output
        assert card.report().findings == ()


def test_taken_socket_is_said(session, prepared, folder):
    """Mutation: take the other's socket away."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as other:
        other.bind(str(folder / "card"))
        other.listen()
        _cannot_start(session, prepared[0], folder, "is taken")


def test_missing_headers_are_said(session, prepared, folder):
    """Mutation: load no layouts till the first command."""
    (folder / "root/usr/src/linux-headers-none-common/include").mkdir(parents=True)
    _cannot_start(session, replace(prepared[0], folder=folder), folder, "no linux/mlx5/mlx5_ifc.h below")


def test_card_verb_serves_anybodys_qemu(session, folder):
    """The printed options start a QEMU that finds the card. Mutation: leave share=on out of them."""
    socket_path = folder / "c"
    argv = [sys.executable, "-m", "harness", "card", "--cache", session.store.root, "--socket", socket_path]
    card = subprocess.Popen([str(word) for word in argv], cwd=CHECKOUT, stdout=subprocess.PIPE, text=True)
    try:
        options = shlex.split(card.stdout.readline())
        argv = [*session.qemu.command, "-nodefaults", "-display", "none", "-S", *options]
        qemu = subprocess.Popen(argv)
        try:
            control = ControlClient(Path(f"{socket_path}.control"))
            until = time.monotonic() + 30
            while not control.ask("ping")["attached"]:
                assert qemu.poll() is None and time.monotonic() < until
                time.sleep(0.1)
            assert control.ask("findings")["findings"] == []
        finally:
            qemu.kill()
            qemu.wait()
    finally:
        card.terminate()
        assert card.wait(20) == 0


def test_unit_tests_that_need_headers(session):
    """Those that a fresh checkout skips, with the cache's kernels. Mutation: shift a Field in wire/cqe.py."""
    kernels = [session.kernel(series) for series in (SERIES if FULL else ["newest"])]
    folders = ":".join({str(kernel.folder) for kernel in kernels})
    tests = ["harness/tests/unit/wire", "harness/tests/unit/connectx/test_main.py"]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", *tests],
        cwd=CHECKOUT,
        env={**os.environ, "ODP_KERNEL_HEADERS": folders},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-3000:]
    assert "names no unpacked kernel headers" not in done.stdout


def _cannot_start(session, kernel, folder, words):
    with (
        DEVICES["connectx-5"].around(session.host, kernel, folder) as card,
        pytest.raises(SetupError, match="did not start") as caught,
    ):
        card.report()
    assert any(words in line for line in caught.value.evidence)


def _wait_for(machine, text):
    until = time.monotonic() + 60
    while text not in (machine.folder / "console").read_text(errors="replace"):
        assert time.monotonic() < until, machine.console.tail(20)
        time.sleep(0.1)
