"""Hostile clients: the card answers or disconnects, continues, and touches granted memory only."""

import os
import socket
import struct

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from harness.connectx.transport import vfio_messages
from harness.connectx.transport.memory import (
    READ,
    WRITE,
    DmaError,
    Memory,
)
from harness.connectx.transport.vfio_messages import Command
from harness.tests.unit.connectx.rig import DOORBELL, PAGE, Rig, Toy, descriptors

MESSAGES_EACH = 60
EXAMPLES = 100
COUNTED = {"messages": 0, "refused": 0, "answered": 0, "maps": 0, "rung": 0}

edges = st.sampled_from(
    [0, 1, 2, 4, 7, 8, 9, 15, 16, 17, 64, 255, 4095, 4096, 8191, 8192, 0x10000, 0x11000, 0xFFFF, 1 << 20]
    + [(1 << 20) + 1, 1 << 31, (1 << 32) - 1, 1 << 40, 1 << 63, (1 << 64) - PAGE, (1 << 64) - 1]
)


def packed(layout):
    """Return a payload of the right layout with edge values: complete, cut short or with a tail."""
    widths = {"H": 16, "I": 32, "Q": 64}
    fields = [letter for letter in layout.format if letter in widths]

    def pack(drawn):
        values, tail, cut = drawn
        words = [value & ((1 << widths[letter]) - 1) for value, letter in zip(values, fields, strict=True)]
        blobs = [b"\x11" * 8] if "s" in layout.format else []
        data = layout.pack(*words, *blobs) + tail
        return data[: len(data) - cut] if cut else data

    drawn = st.tuples(
        st.lists(edges, min_size=len(fields), max_size=len(fields)),
        st.sampled_from([b"", b"", struct.pack("<Q", 0x10000), bytes(16), b"\xff" * 33]),
        st.sampled_from([0, 0, 0, 0, 1, 5]),
    )
    return drawn.map(pack)


def region(offset, number, data):
    return st.just(vfio_messages.REGION.pack(offset, number, len(data)) + data)


doorbells = edges.map(lambda at: vfio_messages.REGION.pack(DOORBELL, 0, 8) + struct.pack("<Q", at))
maps = st.builds(
    lambda flags, offset, address, size: vfio_messages.DMA_MAP.pack(32, flags, offset, address, size),
    st.integers(0, 7),
    st.sampled_from([0, 1, PAGE, 2 * PAGE]),
    st.sampled_from([0, 0x10000, 0x11000, 0x11800, (1 << 64) - PAGE]),
    st.sampled_from([1, PAGE, 2 * PAGE, 16 * PAGE]),
)
multiple = st.lists(packed(vfio_messages.WRITE_ONE), max_size=3).map(
    lambda ones: struct.pack("<Q", len(ones)) + b"".join(ones)
)
PAYLOADS = {
    Command.VERSION: st.sampled_from(
        [b"\0\0\0\0{}\0", b"\0\0\0\0\0", b"", b"\1\0\0\0{}\0", b"\0\0\0\0" + b"[" * 5000, b"\0\0\0\0\xff\xfe"]
    ),
    Command.DMA_MAP: packed(vfio_messages.DMA_MAP) | maps | maps,
    Command.DMA_UNMAP: packed(vfio_messages.DMA_UNMAP),
    Command.GET_INFO: packed(vfio_messages.INFO),
    Command.GET_REGION_INFO: packed(vfio_messages.REGION_INFO),
    Command.GET_REGION_IO_FDS: packed(vfio_messages.REGION_INFO),
    Command.GET_IRQ_INFO: packed(vfio_messages.IRQ_INFO),
    Command.SET_IRQS: packed(vfio_messages.SET_IRQS),
    Command.REGION_READ: packed(vfio_messages.REGION),
    Command.REGION_WRITE: packed(vfio_messages.REGION) | doorbells | doorbells,
    Command.DMA_READ: packed(vfio_messages.DMA),
    Command.DMA_WRITE: packed(vfio_messages.DMA),
    Command.RESET: st.just(b""),
    Command.REGION_WRITE_MULTI: packed(vfio_messages.WRITE_COUNT) | multiple,
}
command_and_payload = st.sampled_from(list(PAYLOADS)).flatmap(
    lambda command: st.tuples(st.just(int(command)), PAYLOADS[command])
) | st.tuples(st.integers(0, 0xFFFF), st.binary(max_size=40))
kinds = st.sampled_from(
    [0] * 12
    + [
        vfio_messages.NO_REPLY,
        vfio_messages.REPLY,
        vfio_messages.REPLY | vfio_messages.ERROR,
        vfio_messages.ERROR,
    ]
)
letters = st.sampled_from(["", "", "m", "m", "e", "p", "me", "eeee", "mmmmmmmm"])
wild = st.tuples(command_and_payload, kinds, letters, st.integers(0, 3))
addresses = st.sampled_from([0, 0xFFF0, 0x10000, 0x10FB0, 0x10FC0, 0x11000, 0x11800, 0x1FFF0, 0x20000])
rings = addresses.map(lambda at: vfio_messages.REGION.pack(DOORBELL, 0, 8) + struct.pack("<Q", at))
unmaps = addresses.map(lambda at: vfio_messages.DMA_UNMAP.pack(24, 0, at, PAGE))
listens = st.integers(0, 16).map(lambda vector: vfio_messages.SET_IRQS.pack(20, 4 | 32, 2, vector, 1))


def sensible(command, payload, letters=""):
    return st.tuples(st.tuples(st.just(int(command)), payload), st.just(0), st.just(letters), st.just(1))


messages = st.one_of(
    wild,
    wild,
    sensible(Command.DMA_MAP, maps, "m"),
    sensible(Command.DMA_MAP, maps, "m"),
    sensible(Command.DMA_UNMAP, unmaps),
    sensible(Command.SET_IRQS, listens, "e"),
    sensible(Command.REGION_WRITE, rings),
    sensible(Command.REGION_WRITE, rings),
)


class Watched(Memory):
    """Memory that checks each success against the plain list of maps."""

    def _pieces(self, address, size, flag):
        pieces = super()._pieces(address, size, flag)
        self.check(address, size, flag)
        return pieces

    def view(self, address, size):
        content = super().view(address, size)
        self.check(address, size, READ | WRITE if size else 0)
        return content

    def check(self, address, size, flag):
        for byte in {address, address + size // 2, address + size - 1} if size else ():
            assert any(m.address <= byte < m.end and m.flags & flag and m.view is not None for m in self.maps)


class Crowd(Toy):
    """A toy that refuses DMA as a card does: not with an exception."""

    def bar_write(self, bar, offset, data):
        try:
            super().bar_write(bar, offset, data)
        except DmaError:
            pass


class Hostile:
    """A rig whose client sends anything and checks nothing but the framing of answers."""

    def __init__(self):
        self.rig = Rig(device=Crowd, memory=Watched())
        self.files = {"m": self.rig.ram, "e": os.eventfd(0), "p": os.memfd_create("pipe's place")}

    def send(self, data, letters=""):
        raw = self.rig.client.stream.socket
        rights = [self.files[letter] for letter in letters]
        try:
            if rights:
                socket.send_fds(raw, [data], rights)
            else:
                raw.send(data)
        except OSError:
            return False
        self.rig.loop.once()
        self.drain()
        return True

    def drain(self):
        stream = self.rig.client.stream
        for message in stream.receive():
            COUNTED["answered"] += 1
            assert message.flags & vfio_messages.TYPE_MASK in (vfio_messages.REQUEST, vfio_messages.REPLY)
            assert bool(message.flags & vfio_messages.ERROR) == bool(message.error)

    def alive(self):
        """Still attached and correct, or hung up and correct for the next client."""
        self.rig.loop.once()
        if not self.rig.server.attached:
            self.rig.client.close()
            self.rig.client = self.rig.connect()
            self.rig.client.hello()
        self.rig.client.write(0, 0x40, b"alive")
        assert self.rig.client.read(0, 0x40, 5) == b"alive"
        broken = [details for kind, details in self.rig.reports if kind == "crash"]
        assert not broken, broken
        COUNTED["refused"] += self.rig.answers.counters["refused"]

    def close(self):
        self.rig.close()
        os.close(self.files["e"])
        os.close(self.files["p"])


@settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.lists(messages, min_size=MESSAGES_EACH, max_size=MESSAGES_EACH))
def play(sequence):
    hostile = Hostile()
    try:
        for (command, payload), flags, letters, number in sequence:
            header = vfio_messages.HEADER.pack(
                number, command, vfio_messages.HEADER.size + len(payload), flags, 0
            )
            COUNTED["messages"] += 1
            if not hostile.send(header + payload, letters):
                break
        COUNTED["maps"] += hostile.rig.kinds().count("map")
        COUNTED["rung"] += hostile.rig.events.fired + hostile.rig.events.lost
        hostile.alive()
    finally:
        hostile.close()


def test_messages():
    """Mutations: no bound in `_place`; `set` takes any vector; a map whose end wraps round is granted."""
    COUNTED.update(dict.fromkeys(COUNTED, 0))
    play()
    print(COUNTED)
    assert COUNTED["messages"] >= 5000
    assert COUNTED["refused"] > 500 and COUNTED["answered"] > 1500
    assert COUNTED["maps"] > 100 and COUNTED["rung"] > 50, "few messages made sense"


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    st.lists(
        st.binary(max_size=64)
        | st.builds(
            lambda number, command, size, flags: struct.pack("<HHIII", number, command, size, flags, 0),
            st.integers(0, 3),
            st.integers(0, 16),
            edges.map(lambda size: size & 0xFFFFFFFF),
            st.integers(0, 0x3F),
        ),
        max_size=12,
    )
)
def test_streams(pieces):
    """Headers that lie, pieces of any length. Mutation: trust a header's size."""
    hostile = Hostile()
    try:
        for piece in pieces:
            if not hostile.send(piece, "m" if len(piece) % 7 == 3 else ""):
                break
        hostile.rig.client.stream.socket.shutdown(socket.SHUT_WR)
        hostile.rig.loop.once()
        hostile.alive()
    finally:
        hostile.close()


def test_nothing_leaks():
    """Descriptors of refused messages are closed. Mutation: drop `message.close()`."""
    before = descriptors()
    hostile = Hostile()
    for letters in ("m", "e", "me", "mmmm") * 5:
        payload = vfio_messages.DMA_MAP.pack(32, 3, 0, 0, 1 << 63)
        hostile.send(vfio_messages.HEADER.pack(1, 2, 16 + len(payload), 0, 0) + payload, letters)
        hostile.send(vfio_messages.HEADER.pack(1, 99, 16, 0, 0), letters)
    hostile.send(struct.pack("<HHIII", 1, 9, 3, 0, 0), "mm")
    hostile.close()
    assert descriptors() == before
