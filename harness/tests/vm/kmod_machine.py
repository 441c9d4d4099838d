"""Machines for the tests of the kernel module: one card, the module in the payload, functions of kmod_guest.py run."""

import json
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path

from harness.connectx.transport import qemu_options
from harness.device.catalogue import DEVICES
from harness.kernel.build import build
from harness.kernel.packages import SERIES
from harness.machine import payload_disk
from harness.machine.console import scan
from harness.machine.qemu import MachineConfig, kernel_command_line
from harness.machine.vm import Machine
from harness.tests.vm.conftest import CHECKOUT, FULL
from harness.values.case import Request
from harness.values.rule import Rule

HERE = Path(__file__).parent
KERNELS = [name for name in SERIES if name != "newest"] if FULL else ["newest"]
SCRIPTS = ("kmod_guest.py", "kmod_tour.py", "kmod_stress.py")
START = """
import importlib, sys
from harness.guest import payload
payload.mount_payload()
sys.path.insert(0, str(payload.MOUNT_POINT))
importlib.import_module(sys.argv[1]).main(*sys.argv[2:])
"""
ABSENT = Rule("absent-page", region="remote", page=3, count=0, since="connected")
SECOND_PORT = "cardport2"
HARDENED = "slub_debug=FZPU panic_on_warn=1"


class Bench:
    """A kernel with the module in its payload."""

    def __init__(self, session, series):
        self.session = session
        self.kernel = session.kernel(series)
        self.module = build(CHECKOUT / "kmod", self.kernel, session.archive).modules["mlx5_odp_test"]

    def request(self, script, *argv):
        environment = {"PYTHONPATH": "/opt/odp", "PYTHONDONTWRITEBYTECODE": "1"}
        return Request(
            9, "exec", "connectx-5", argv=("python3", "-c", START, script, *argv), environment=environment
        )

    def disks(self):
        files = {"mlx5_odp_test.ko": self.module, **{name: HERE / name for name in SCRIPTS}}
        packed = payload_disk.packed(files, self.session.store, self.session.host)
        return replace(self.session.machines.disks(self.kernel)[0], payload=packed)

    def shape(self):
        return self.session.machines.shape("real", self.session.accelerator(self.kernel)[0])

    @contextmanager
    def restored(self, script, *argv, rules=()):
        """Restore a booted machine: no bcc probes, and no snapshot for each module."""
        machines = self.session.machines
        snapshot = replace(machines.booted(self.kernel, self.shape()), disks=self.disks())
        with (
            self.session.ledger.scratch_folder("kmod") as folder,
            DEVICES["connectx-5"].around(self.session.host, self.kernel, folder) as card,
            machines.restore(snapshot, self.request(script, *argv), folder, plugged=True) as machine,
        ):
            card.arm(rules)
            card.plug(machine)
            yield card, machine

    @contextmanager
    def hardened(self, script, *argv, rules=(), cards=2):
        """Boot a machine that checks its slabs and panics on a WARN, with ports for two cards."""
        ports = ("-device", f"pcie-root-port,id={SECOND_PORT},bus=pcie.0,chassis=3,pref64-reserve=128M")
        words = ("-append", f"{kernel_command_line(self.shape())} {HARDENED}")
        host, ledger = self.session.host, self.session.ledger
        with ExitStack() as stack:
            folder = stack.enter_context(ledger.scratch_folder("kmod"))
            folders = [folder, stack.enter_context(ledger.scratch_folder("second"))]
            around = DEVICES["connectx-5"].around
            here = [stack.enter_context(around(host, self.kernel, place)) for place in folders[:cards]]
            ram = stack.enter_context(ledger.memory_file("ram", self.shape().memory_mib << 20))
            config = MachineConfig(
                self.shape(), self.disks(), self.request(script, *argv), ram, extra=(*ports, *words)
            )
            machine = stack.enter_context(Machine(host, self.session.qemu, folder, config))
            for card in here:
                card.arm(rules)
            yield here, machine


def plug(machine, card, second=False):
    """Put a card into a machine that runs."""
    card.control.ask("ping")
    place = {"bus": SECOND_PORT, "id": "card2"} if second else {}
    machine.qmp.command("device_add", **{**qemu_options.device(card.folder / "card", "cardport"), **place})


def results_of(machine, reply):
    """Return the JSON of the guest's last line; the console must be clean."""
    assert reply.exit_status == 0, reply.output[-4000:]
    symptoms = scan(machine.console.since())
    assert not symptoms, symptoms
    return json.loads(reply.output.splitlines()[-1])


def step(results, name):
    """Return the result of one step of the guest; one that raised fails here."""
    assert "error" not in results[name], results[name]
    return results[name]
