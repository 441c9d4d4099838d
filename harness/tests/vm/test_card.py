"""The emulated card in real guests: probe and unload, and the errors when a process dies or cannot start."""

import os
import shlex
import signal
import socket
import subprocess
import sys
import threading
import time
import xml.etree.ElementTree as xml
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
from harness.plan.runner import CaseRunner
from harness.plan.target import VmTarget
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
    """Start a card and a machine that runs `argv` with it."""
    kernel, snapshot = prepared
    request = Request(9, "exec", "connectx-5", argv=argv)
    with (
        DEVICES["connectx-5"].around(session.host, kernel, folder) as card,
        session.machines.restore(snapshot, request, folder, plugged=True) as machine,
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
    record, logs = CaseRunner(session).run(replace(planned, case=case))
    assert (record.verdict, record.reasons) == ("pass", ())
    assert record.device_report.findings == () and record.device_report.unknown == ()
    assert record.device_report.counters["commands.ENABLE_HCA"] == 3
    assert record.device_report.counters["commands.DISABLE_HCA"] == 2
    assert logs.card[:2] == b"\x1f\x8b", "the conversation is a whole gzip file"


def test_verbs_report_the_capabilities_of_the_firmware(session):
    """Compare verbs, firmware and the kernel module.

    Mutation: leave `read` out of the card's transport capabilities, or the scheme out of the counters, or query the
    page of another scheme (kmod/caps.c).
    """
    capabilities = ask(session, "newest", "connectx-7")
    assert capabilities.scheme == "memory"
    for transport in ("rc", "ud"):
        # verbs and firmware have different names for it
        stated = {w.replace("receive", "recv") for w in capabilities.firmware["memory"][transport]}
        assert set(capabilities.verbs[transport]) == stated
    stated = {row: set(words) for row, words in capabilities.firmware["memory"].items() if row != "general"}
    for page in ("max", "cur"):
        assert {row: set(words) for row, words in capabilities.module[f"{page}.memory"].items()} == stated


def test_a_killed_card_is_named_as_first_to_die(session, prepared, folder):
    """Kill the card: QEMU aborts when its device dies. Mutation: check QEMU first."""
    kernel, snapshot = prepared
    request = Request(9, "exec", "connectx-5", argv=("sleep", "60"))
    with VmTarget(session, kernel, snapshot, "connectx-5", "card") as target:
        killer = threading.Timer(2.0, target.attached.process.kill)
        killer.start()
        try:
            with pytest.raises(SetupError, match="the card connectx-5 died first, with status -9"):
                target.offer(request, 60)
        finally:
            killer.cancel()


def test_a_killed_qemu_is_named(session, prepared, folder):
    """Kill QEMU: the card continues. Mutation: let the card end with its client."""
    with plugged(session, prepared, folder, "sleep", "60") as (card, machine):
        os.kill(machine.process.pid, signal.SIGKILL)
        with pytest.raises(SetupError, match="QEMU ended by itself with status -9"):
            machine.wait(60, card.check)
        assert card.report().findings == ()


def test_a_card_is_unplugged_and_plugged_again(session, prepared, folder):
    """Mutation: show QEMU the MSI-X capability (connectx.msix): QEMU aborts."""
    with plugged(session, prepared, folder, "sh", "-c", APPEARS_TWICE) as (card, machine):
        _wait_for(machine, "card seen 1")
        card.unplug(machine)
        card.plug(machine)
        reply = machine.wait(60, card.check)
        assert "ACTIVE" in reply.output
        assert card.report().findings == ()


def test_a_taken_socket_is_an_error(session, prepared, folder):
    """Mutation: remove the other process's socket."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as other:
        other.bind(str(folder / "card"))
        other.listen()
        _cannot_start(session, prepared[0], folder, "is taken")


def test_missing_headers_are_an_error(session, prepared, folder):
    """Mutation: load no layouts before the first command."""
    (folder / "root/usr/src/linux-headers-none-common/include").mkdir(parents=True)
    _cannot_start(session, replace(prepared[0], folder=folder), folder, "no linux/mlx5/mlx5_ifc.h below")


def test_the_card_command_serves_any_qemu(session, folder):
    """Start a QEMU with the printed options: it finds the card. Mutation: leave share=on out of them."""
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


def test_unit_tests_that_need_headers(session, tmp_path):
    """Run those that a fresh checkout skips, with the kernel of each series; none may be skipped.

    Mutations: shift a Field in wire/cqe.py; name no folder.
    """
    folders = sorted({str(session.kernel(series).folder) for series in SERIES})
    junit = tmp_path / "x.xml"
    tests = ["harness/tests/unit/wire", "harness/tests/unit/connectx/test_main.py"]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", f"--junitxml={junit}", *tests],
        cwd=CHECKOUT,
        env={**os.environ, "ODP_KERNEL_HEADERS": ":".join(folders), "PYTEST_ADDOPTS": ""},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-3000:]
    cases = {str(case.get("name")): case for case in xml.parse(junit).getroot().iter("testcase")}
    assert [name for name, case in cases.items() if case.find("skipped") is not None] == []
    of_kernels = {Path(folder).name: sum(Path(folder).name in name for name in cases) for folder in folders}
    print(f"{len(cases)} tests, by kernel: {of_kernels}")
    assert len(set(of_kernels.values())) == 1 and min(of_kernels.values()) > 10


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
