"""A machine's command line."""

from dataclasses import fields
from pathlib import Path

from harness.machine.qemu import Qemu, Shape, Wiring, command_line

QEMU = Qemu(("qemu",), "11.1.3", "host", Path("faketime.so"))
PATHS = {field.name: Path(field.name) for field in fields(Wiring) if field.type == "Path"}


def test_no_virtio_device_answers_from_another_thread():
    """Mutation: leave a device its eventfd; then a restored machine is interrupted when the host likes."""
    line = command_line(QEMU, Shape(), Wiring(**PATHS))
    devices = [word for word in line if word.startswith("virtio-")]
    assert len(devices) == 4
    assert all(word.endswith(",ioeventfd=off") for word in devices)


def test_the_wall_clock_stands_still_in_exact_time_only():
    """Mutations: let the host's clock size QEMU's TLB; stop it for a machine that lives in real time."""
    exact, real = (command_line(QEMU, Shape(clock=clock), Wiring(**PATHS)) for clock in ("exact", "real"))
    assert exact[0] == "env" and "LD_PRELOAD=faketime.so" in exact[: exact.index("qemu")]
    assert real[0] == "qemu"
