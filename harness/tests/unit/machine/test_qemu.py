"""The command line of a machine."""

from dataclasses import fields, replace
from pathlib import Path

from harness.machine.qemu import Channels, Disks, MachineConfig, Qemu, Shape, command_line
from harness.values.case import Request

QEMU = Qemu(("qemu",), "11.1.3", "host", Path("faketime.so"))
DISKS = Disks(*(Path(field.name) for field in fields(Disks)))
CONFIG = MachineConfig(Shape(), DISKS, Request(0, "wait"), Path("ram"))


def line(**changes):
    return command_line(QEMU, replace(CONFIG, **changes), Channels(Path("folder")))


def test_no_virtio_device_is_handled_by_another_thread():
    """Mutation: leave a device its eventfd; then a restored machine is interrupted when the host likes."""
    devices = [word for word in line() if word.startswith("virtio-")]
    assert len(devices) == 4
    assert all(word.endswith(",ioeventfd=off") for word in devices)


def test_the_wall_clock_stops_in_exact_time_only():
    """Mutations: let the host's clock size QEMU's TLB; stop it for a machine in real time."""
    exact, real = (line(shape=Shape(clock=clock)) for clock in ("exact", "real"))
    assert exact[0] == "env" and "LD_PRELOAD=faketime.so" in exact[: exact.index("qemu")]
    assert real[0] == "qemu"


def test_a_machine_boots_or_is_restored_and_runs_or_waits():
    """Mutations: leave out -incoming; leave out -S for a debugger."""
    assert "-incoming" not in line() and "-S" not in line()
    restored = line(incoming=Path("state"))
    assert restored[restored.index("-incoming") + 1] == "file:state" and "-S" not in restored
    assert "-S" in line(paused=True) and "-S" in line(held=True)


def test_only_a_private_machine_without_a_terminal_is_recorded():
    """Mutations: record a machine that is to be saved; record one in real time."""
    kinds = (
        {"shared": False},
        {"shared": True},
        {"shared": False, "terminal": True},
        {"shared": False, "shape": Shape(clock="icount")},
        {"shared": False, "shape": Shape(clock="real")},
    )
    recorded = [any("rr=record" in word for word in line(**kind)) for kind in kinds]
    assert recorded == [True, False, False, False, False]


def test_the_memory_of_a_restored_machine_is_private():
    """Mutation: share=on always; then a case writes to the snapshot."""
    assert any(word.endswith("mem-path=ram,share=off") for word in line(shared=False))
    assert any(word.endswith("mem-path=ram,share=on") for word in line())
