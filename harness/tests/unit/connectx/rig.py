"""A small device and both ends of a connection in one thread, for the tests of the transport."""

import gc
import os
import socket
import struct
from pathlib import Path

from harness.connectx.transport.client import Client
from harness.connectx.transport.interrupts import EventInterrupts
from harness.connectx.transport.loop import Loop
from harness.connectx.transport.memory import Memory
from harness.connectx.transport.msix import MessageInterrupts
from harness.connectx.transport.pci import (
    ConfigSpace,
    PciIdentity,
)
from harness.connectx.transport.server import Server
from harness.connectx.transport.vfio_user import Answers

PAGE = 4096
DOORBELL = 0x100
BROKEN = 0x200


def descriptors():
    """Count the open descriptors of this process, after collecting garbage of earlier tests."""
    gc.collect()
    return len(list(Path("/proc/self/fd").iterdir()))


class Toy:
    """A doorbell with an address: 16 bytes there are written back reversed at +64, then vector 0 fires."""

    def __init__(self, memory, interrupts, note=lambda entry: None, clock=lambda: 0.0):
        self.memory, self.interrupts, self.note, self.clock = memory, interrupts, note, clock
        self.registers = bytearray(8192)
        self.resets = self.detached = 0
        self.due = None

    def bar_read(self, bar, offset, size):
        if offset == BROKEN:
            raise ZeroDivisionError("read")
        return bytes(self.registers[offset : offset + size]).ljust(size, b"\0")

    def bar_write(self, bar, offset, data):
        if offset == BROKEN:
            raise RecursionError("write")
        if offset == DOORBELL and len(data) == 8:
            (address,) = struct.unpack("<Q", data)
            self.note({"doorbell": address})
            data = bytes(self.memory.view(address, 16))
            self.memory.write(address + 64, data[::-1])
            self.interrupts.fire(0)
        else:
            self.registers[offset : offset + len(data)] = data

    def reset(self):
        self.resets += 1
        self.registers[:] = bytes(8192)

    def detach(self):
        self.detached += 1

    def tick(self):
        return self.due


class Rig:
    """Server and client over a socket pair; `pages` of a memfd are mapped at address 0x10000."""

    BASE = 0x10000

    def __init__(
        self,
        hello=True,
        device=Toy,
        memory=None,
        interrupts=None,
        wrap=lambda rig: rig.device,
        own_msix=False,
    ):
        self.loop = Loop()
        self.memory = memory or Memory()
        self.events = EventInterrupts(16)
        if own_msix:
            self.events = MessageInterrupts(16, lambda address, data: self.server.post(address, data))
        self.reports = []
        self.device = device(self.memory, interrupts or self.events)
        self.identity = PciIdentity(registers_size=8192)
        config = ConfigSpace(self.identity, late_msix=own_msix)
        self.answers = Answers(wrap(self), config, self.memory, self.events, self.report)
        self.server = Server(self.answers, self.loop)
        self.ram = os.memfd_create("guest")
        os.ftruncate(self.ram, 16 * PAGE)
        self.client = self.connect()
        if hello:
            self.client.hello()

    def connect(self):
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        self.server.attach(ours)
        return Client(theirs, pump=self.loop.once)

    def report(self, kind, details):
        self.reports.append((kind, details))

    def kinds(self):
        return [kind for kind, _ in self.reports]

    def close(self):
        self.server.drop("the test is over")
        self.client.close()
        self.loop.close()
        os.close(self.ram)
