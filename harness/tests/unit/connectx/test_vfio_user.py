"""vfio-user server, with a client in this process."""

import errno
import json
import os
import socket
import struct
import time

import pytest

from harness.connectx.transport import vfio_messages
from harness.connectx.transport.client import (
    CONFIG,
    Answered,
    Client,
)
from harness.connectx.transport.interrupts import (
    ERROR,
    MSIX,
)
from harness.connectx.transport.pci import SIZE
from harness.connectx.transport.vfio_messages import Command
from harness.tests.unit.connectx.rig import BROKEN, DOORBELL, PAGE, Rig, descriptors


def test_version_answer_is_shorter_than_qemus_question():
    """Mutation: answer all of the default capabilities; QEMU takes no reply larger than its request."""
    rig = Rig(hello=False)
    # What QEMU 11.1.3 sends.
    text = json.dumps({"capabilities": {"max_msg_fds": 16, "write_multiple": True, "pgsizes": 4096}})
    question = vfio_messages.VERSION.pack(0, 0) + text.encode() + b"\0"
    answer = rig.client.ask(Command.VERSION, question)
    assert len(answer) <= len(question)
    assert json.loads(answer[4:-1])["capabilities"]["write_multiple"] is True
    assert answer[-1] == 0
    rig.close()


def test_nothing_before_the_version_and_no_second_one():
    """Mutation: drop the check of `_negotiated`."""
    rig = Rig(hello=False)
    with pytest.raises(Answered) as refusal:
        rig.client.read(0, 0, 4)
    assert refusal.value.number == errno.EINVAL
    rig.client.hello()
    with pytest.raises(Answered):
        rig.client.hello()
    assert rig.client.read(0, 0, 4) == bytes(4)
    rig.close()


def test_device_and_region_info(rig):
    """Mutation: swap size and offset in REGION_INFO."""
    _, flags, regions, interrupts = vfio_messages.INFO.unpack(
        rig.client.ask(Command.GET_INFO, vfio_messages.INFO.pack(16, 0, 0, 0))
    )
    assert (flags, regions, interrupts) == (3, 9, 5)
    sizes = []
    for index in range(regions):
        question = vfio_messages.REGION_INFO.pack(32, 0, index, 0, 0, 0)
        _, flags, _, _, size, offset = vfio_messages.REGION_INFO.unpack(
            rig.client.ask(Command.GET_REGION_INFO, question)
        )
        assert flags == (3 if size else 0) and offset == 0
        sizes.append(size)
    assert sizes == [8192, 0, 0x4000, 0, 0, 0, 0, SIZE, 0]
    for index in range(interrupts):
        _, flags, _, count = vfio_messages.IRQ_INFO.unpack(
            rig.client.ask(Command.GET_IRQ_INFO, vfio_messages.IRQ_INFO.pack(16, 0, index, 0))
        )
        assert (flags, count) == {MSIX: (9, 16), ERROR: (9, 1)}.get(index, (0, 0))


def test_dma_and_interrupt(rig):
    """Mutation: pass `map_file` the offset without its lead; do not write to the eventfd."""
    os.pwrite(rig.ram, b"0123456789abcdef", 3 * PAGE + 512)
    rig.client.map(rig.BASE, PAGE, rig.ram, offset=3 * PAGE)
    events = rig.client.listen(16)
    rig.client.write(0, DOORBELL, struct.pack("<Q", rig.BASE + 512))
    assert os.pread(rig.ram, 16, 3 * PAGE + 576) == b"fedcba9876543210"
    assert os.eventfd_read(events[0]) == 1
    with pytest.raises(BlockingIOError):
        os.eventfd_read(events[1])


def test_a_descriptor_goes_to_its_own_map_when_messages_arrive_together(rig):
    """QEMU maps ROM without and RAM with a descriptor, without waiting.

    Mutation: take descriptors in order of arrival.
    """
    rom = vfio_messages.DMA_MAP.pack(vfio_messages.DMA_MAP.size, 1, 0, 0xC0000, PAGE)
    ram = vfio_messages.DMA_MAP.pack(vfio_messages.DMA_MAP.size, 3, 0, rig.BASE, PAGE)
    first = rig.client.post(Command.DMA_MAP, rom)
    second = rig.client.post(Command.DMA_MAP, ram, [rig.ram])
    third = rig.client.post(Command.DMA_MAP, vfio_messages.DMA_MAP.pack(32, 1, 0, 0xD0000, PAGE))
    for number in (first, second, third):
        rig.client.wait(number)
    backed = {granted.address: granted.view is not None for granted in rig.memory.maps}
    assert backed == {0xC0000: False, rig.BASE: True, 0xD0000: False}


def test_eventfds_for_error_and_request_are_taken_off(rig):
    """Mutation: leave the descriptors of other indexes on a common list, so that the next map gets one."""
    before = descriptors()
    for index in (3, 4):
        event = os.eventfd(0)
        rig.client.ask(Command.SET_IRQS, vfio_messages.SET_IRQS.pack(20, 4 | 32, index, 0, 1), [event])
        os.close(event)
    rig.client.map(0xE0000, PAGE, None)
    assert rig.memory.maps[0].view is None
    assert descriptors() == before


def test_eventfds_can_be_removed(rig):
    """Mutation: leave the eventfds in place at count 0."""
    events = rig.client.listen(3, start=2)
    rig.events.fire(3)
    assert os.eventfd_read(events[1]) == 1
    before = rig.events.lost
    rig.client.mute()
    rig.events.fire(3)
    assert rig.events.lost == before + 1
    rig.client.ask(Command.SET_IRQS, vfio_messages.SET_IRQS.pack(20, 1 | 32, MSIX, 2, 1))
    rig.events.fire(99)
    assert rig.events.lost == before + 3


@pytest.mark.parametrize(
    "irqs",
    [(4 | 32, MSIX, 15, 2), (4 | 32, 7, 0, 1), (4, MSIX, 0, 1), (2 | 32, MSIX, 0, 4), (32, MSIX, 0, 1)],
)
def test_invalid_interrupt_messages_are_refused(rig, irqs):
    """Mutation: do not compare start + count with the number of vectors."""
    with pytest.raises(Answered) as refusal:
        rig.client.ask(Command.SET_IRQS, vfio_messages.SET_IRQS.pack(20, *irqs))
    assert refusal.value.number == errno.EINVAL


def test_only_eventfds_are_taken_for_interrupts(rig):
    """A pipe could block the card. Mutation: take any descriptor."""
    reader, writer = os.pipe()
    with pytest.raises(Answered):
        rig.client.ask(Command.SET_IRQS, vfio_messages.SET_IRQS.pack(20, 4 | 32, MSIX, 0, 1), [writer])
    os.close(reader)
    os.close(writer)


def test_write_multiple(rig):
    """Mutation: start the second write at the wrong offset."""
    one = vfio_messages.WRITE_ONE.pack(0x10, 0, 4, b"abcd")
    two = vfio_messages.WRITE_ONE.pack(0x14, 0, 8, b"efghijkl")
    rig.client.post(
        Command.REGION_WRITE_MULTI, struct.pack("<Q", 2) + one + two, flags=vfio_messages.NO_REPLY
    )
    assert rig.client.read(0, 0x10, 12) == b"abcdefghijkl"
    for count in (0, 3, 1 << 60):
        with pytest.raises(Answered):
            rig.client.ask(Command.REGION_WRITE_MULTI, struct.pack("<Q", count) + one + two)


def test_posted_writes_are_not_answered(rig):
    """Mutation: answer them; the client then sees a reply it does not wait for."""
    rig.client.write(0, 0x20, b"posted!!", posted=True)
    assert rig.client.read(0, 0x20, 8) == b"posted!!"
    assert not rig.client._replies


@pytest.mark.parametrize(
    "place", [(0, 8190, 4), (0, 1 << 63, 4), (1, 0, 1), (9, 0, 1), (6, 0, 1), (7, 4095, 2)]
)
def test_accesses_beyond_a_region_are_refused(rig, place):
    """Mutation: compare the offset only."""
    with pytest.raises(Answered) as refusal:
        rig.client.read(*place)
    assert refusal.value.number == errno.EINVAL
    with pytest.raises(Answered):
        rig.client.write(place[0], place[1], bytes(place[2]))


def test_a_broken_model_is_a_finding_and_the_card_continues(rig):
    """QEMU aborts on an error answer. Mutation: let the exception out, or answer EIO."""
    assert rig.client.read(0, BROKEN, 4) == b"\xff" * 4
    rig.client.write(0, BROKEN, b"1234")
    crashes = [details["why"] for kind, details in rig.reports if kind == "crash"]
    assert crashes == ["ZeroDivisionError: read", "RecursionError: write"]
    assert rig.client.read(0, 0, 4) == bytes(4)


def test_dma_outside_granted_memory_touches_nothing(rig):
    """Mutation: compare only the first byte with the map."""
    rig.client.map(rig.BASE, PAGE, rig.ram)
    events = rig.client.listen(1)
    for address in (0, rig.BASE - 1, rig.BASE + PAGE - 8, rig.BASE + PAGE, (1 << 64) - 1):
        rig.client.write(0, DOORBELL, struct.pack("<Q", address))
    assert rig.kinds().count("crash") == 5
    assert os.pread(rig.ram, 16 * PAGE, 0) == bytes(16 * PAGE)
    with pytest.raises(BlockingIOError):
        os.eventfd_read(events[0])


def test_a_reply_without_a_request_is_reported(rig):
    """Mutation: close the connection; take any reply for a request."""
    rig.client.stream.send(777, Command.DMA_READ, vfio_messages.REPLY, b"")
    rig.client.poll()
    assert rig.kinds().count("protocol") == 1
    assert rig.client.read(0, 0, 4) == bytes(4)


def test_reset(rig):
    """Mutation: leave the configuration space as it was."""
    rig.client.write(0, 0x40, b"dirt")
    rig.client.write(CONFIG, 4, b"\x06\0")
    rig.client.ask(Command.RESET)
    assert rig.device.resets == 1
    assert rig.client.read(0, 0x40, 4) == bytes(4)
    assert rig.client.read(CONFIG, 4, 2) == bytes(2)


def test_a_client_leaves_and_another_comes(rig):
    """Mutation: keep the maps, or the eventfds, of the client that left."""
    rig.client.map(rig.BASE, PAGE, rig.ram)
    rig.client.listen(4)
    rig.client.write(CONFIG, 4, b"\x06\0")
    before = descriptors()
    rig.client.close()
    for _ in range(3):
        rig.loop.once()
    assert not rig.server.attached and rig.device.detached == 1 and rig.memory.maps == ()
    assert descriptors() == before - 7  # connection, events, map
    rig.client = rig.connect()
    rig.client.hello()
    assert rig.client.read(CONFIG, 4, 2) == bytes(2)


def test_a_client_that_comes_as_another_leaves(tmp_path, rig):
    """Both happen in the same round. Mutation: refuse it because the first is still attached."""
    rig.client.close()
    rig.loop.once()
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "s"))
        listener.listen()
        rig.server.listen(listener)
        first, second = socket.socket(socket.AF_UNIX), socket.socket(socket.AF_UNIX)
        first.connect(str(tmp_path / "s"))
        rig.loop.once()
        second.connect(str(tmp_path / "s"))
        first.close()
        rig.server._accept(listener)
        rig.client = Client(second, pump=rig.loop.once)
        rig.client.hello()
        rig.loop.remove(listener)


def test_a_malformed_stream_is_closed_and_the_card_continues(rig):
    """Mutation: trust the size of a header."""
    rig.client.stream.socket.send(struct.pack("<HHIII", 1, 9, 0xFFFFFFFF, 0, 0))
    with pytest.raises(ConnectionError):
        rig.client.read(0, 0, 4)
    rig.client = rig.connect()
    rig.client.hello()
    assert rig.client.read(0, 0, 4) == bytes(4)


def test_a_write_with_less_data_than_it_says(rig):
    """Mutation: store what is there."""
    with pytest.raises(Answered) as refusal:
        rig.client.ask(Command.REGION_WRITE, vfio_messages.REGION.pack(0x10, 0, 8) + b"four")
    assert refusal.value.number == errno.EINVAL
    assert rig.client.read(0, 0x10, 8) == bytes(8)


def test_timers_wake_the_loop(rig):
    """Mutation: wait for messages only."""
    rig.device.due = 0.01
    began = time.monotonic()
    assert not rig.loop.once(5.0)
    assert time.monotonic() - began < 2


def test_a_message_in_parts(rig):
    """Mutation: forget the first part when a message arrives in two."""
    message = vfio_messages.HEADER.pack(9, Command.REGION_READ, 32, 0, 0) + vfio_messages.REGION.pack(0, 0, 4)
    for byte in message:
        rig.client.stream.socket.send(bytes([byte]))
        rig.loop.once()
    assert rig.client.wait(9)[16:] == bytes(4)


def test_a_client_that_never_reads(rig):
    """Answers wait in the card, then the connection is closed. Mutation: no limit, or a blocking send."""
    message = vfio_messages.HEADER.pack(9, Command.REGION_READ, 32, 0, 0) + vfio_messages.REGION.pack(
        0, 0, 8192
    )
    rig.client.stream.socket.settimeout(0.2)
    for _ in range(8000):
        try:
            rig.client.stream.socket.send(message)
        except OSError:
            break
        rig.loop.once()
    assert not rig.server.attached
    assert "protocol" in rig.kinds()
