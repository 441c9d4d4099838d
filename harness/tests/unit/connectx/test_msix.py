"""MSI-X by the card: the capability as QEMU and the guest see it, messages as DMA writes."""

import struct

import pytest

from harness.connectx.transport import vfio_messages
from harness.connectx.transport.client import CONFIG
from harness.connectx.transport.interrupts import MSIX
from harness.connectx.transport.msix import MessageInterrupts
from harness.connectx.transport.pci import (
    MSIX_PENDING,
    MSIX_TABLE,
)
from harness.connectx.transport.vfio_messages import Command
from harness.tests.unit.connectx.rig import DOORBELL, PAGE, Rig

CAPABILITY = 0x9C
TABLE_BAR = 2


@pytest.fixture
def sent():
    return []


@pytest.fixture
def table(sent):
    return MessageInterrupts(16, lambda address, data: sent.append((address, data)))


def program(table, vector, masked=0):
    table.write(MSIX_TABLE + 16 * vector, struct.pack("<QII", 0xFEE00000 + vector, 0x40 + vector, masked))


def test_a_vector_is_a_write_of_its_data_to_its_address(table, sent):
    """Mutation: swap address and data of an entry."""
    table.control(0x8000)
    program(table, 3)
    table.fire(3)
    assert sent == [(0xFEE00003, b"\x43\0\0\0")]
    assert table.fired == 1


def test_masked_vectors_stay_pending(table, sent):
    """Mutation: drop them; send twice; forget the mask of the whole function."""
    table.control(0xC000)
    program(table, 1)
    program(table, 2, masked=1)
    for vector in (1, 2, 2):
        table.fire(vector)
    assert sent == [] and table.read(MSIX_PENDING, 8) == struct.pack("<Q", 0b110)
    table.control(0x8000)
    assert sent == [(0xFEE00001, b"\x41\0\0\0")]
    assert table.read(MSIX_PENDING, 8) == struct.pack("<Q", 0b100)
    table.write(MSIX_TABLE + 16 * 2 + 12, bytes(4))
    assert sent[1:] == [(0xFEE00002, b"\x42\0\0\0")]
    assert table.read(MSIX_PENDING, 8) == bytes(8)


def test_disabled_or_unknown_vectors_are_lost(table, sent):
    """Mutation: send them to address 0."""
    table.fire(0)
    table.control(0x8000)
    table.fire(16)
    assert table.lost == 2 and sent == []


def test_reads_and_writes_keep_to_the_table(table):
    """Mutation: let a write grow the table."""
    assert table.read(MSIX_TABLE + 12, 4) == b"\x01\0\0\0", "masked at first"
    table.write(MSIX_TABLE + 16 * 16 - 4, b"\x01\0\0\0" + b"\xff" * 60)
    table.write(MSIX_PENDING, b"\xff" * 8)
    assert len(table.read(MSIX_TABLE, 256)) == 256
    assert table.read(MSIX_TABLE + 256, 8) == bytes(8)
    assert table.read(MSIX_PENDING, 8) == bytes(8)
    assert table.read(MSIX_TABLE + 254, 4) == b"\0\0\0\0"
    table.reset()
    assert table.read(MSIX_TABLE + 12, 4) == b"\x01\0\0\0"


@pytest.fixture
def rig():
    made = Rig(own_msix=True)
    yield made
    made.close()


def test_qemu_sees_no_msix_and_the_guest_does(rig):
    """QEMU 11.1 aborts at device_del otherwise. Mutation: show it from power-on, or never again."""
    question = vfio_messages.IRQ_INFO.pack(16, 0, MSIX, 0)
    assert vfio_messages.IRQ_INFO.unpack(rig.client.ask(Command.GET_IRQ_INFO, question))[3] == 0
    assert rig.client.read(CONFIG, CAPABILITY, 1) == b"\x09"
    rig.client.ask(Command.RESET)
    assert rig.client.read(CONFIG, CAPABILITY, 1) == b"\x11"
    rig.client.close()
    rig.loop.once()
    rig.client = rig.connect()
    rig.client.hello()
    assert rig.client.read(CONFIG, CAPABILITY, 1) == b"\x09", "the next QEMU looks again"


def test_interrupts_over_the_socket(rig):
    """As a DMA write without a reply. Mutation: request a reply; do not look at the control word."""
    rig.client.ask(Command.RESET)
    rig.client.write(TABLE_BAR, MSIX_TABLE, struct.pack("<QII", 0xFEE01000, 0x26, 0))
    rig.events.fire(0)
    assert rig.client.poll() == [] and rig.events.lost == 1
    rig.client.write(CONFIG, CAPABILITY + 2, struct.pack("<H", 0x8000))
    rig.events.fire(0)
    (message,) = rig.client.poll()
    assert message.command == Command.DMA_WRITE and message.flags == vfio_messages.NO_REPLY
    assert message.payload == struct.pack("<QQI", 0xFEE01000, 4, 0x26)
    assert rig.client.read(TABLE_BAR, MSIX_TABLE, 8) == struct.pack("<Q", 0xFEE01000)
    rig.client.ask(Command.RESET)
    rig.events.fire(0)
    assert rig.client.poll() == [] and rig.events.lost == 2


def test_an_interrupt_waits_for_the_answer_to_the_access(rig):
    """QEMU may hold its lock until then. Mutation: send the message from inside the call."""
    rig.client.ask(Command.RESET)
    rig.client.map(rig.BASE, PAGE, rig.ram)
    rig.client.write(TABLE_BAR, MSIX_TABLE, struct.pack("<QII", 0xFEE01000, 0x26, 0))
    rig.client.write(CONFIG, CAPABILITY + 2, struct.pack("<H", 0x8000))
    number = rig.client.post(
        Command.REGION_WRITE,
        vfio_messages.REGION.pack(DOORBELL, 0, 8) + struct.pack("<Q", rig.BASE),
    )
    arrived = []
    sort = rig.client._sort
    rig.client._sort = lambda messages: (arrived.extend(messages), sort(messages))
    while len(arrived) < 2:
        rig.client.poll()
    assert [message.command for message in arrived] == [Command.REGION_WRITE, Command.DMA_WRITE]
    assert arrived[0].number == number
