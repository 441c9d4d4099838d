"""A machine's command line."""

from dataclasses import fields
from pathlib import Path

from harness.machine.qemu import Qemu, Shape, Wiring, command_line

PATHS = {field.name: Path(field.name) for field in fields(Wiring) if field.type == "Path"}


def test_no_virtio_device_answers_from_another_thread():
    """Mutation: leave a device its eventfd; then a restored machine is interrupted when the host likes."""
    line = command_line(Qemu(("qemu",), "11.1.3", "host"), Shape(), Wiring(**PATHS))
    devices = [word for word in line if word.startswith("virtio-")]
    assert len(devices) == 4
    assert all(word.endswith(",ioeventfd=off") for word in devices)
