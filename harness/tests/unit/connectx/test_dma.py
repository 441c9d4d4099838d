"""Transfers between two QPs."""

import struct

import pytest

from harness.tests.unit.connectx.pair import PATTERN, VA
from harness.wire import cqe, wqe


def test_a_message_is_scattered_as_posted(pair):
    """Mutation: skip a segment's offset in operation.skip_bytes."""
    pair.receive((pair.keys[1], VA + 5, 100))
    pair.send(wqe.SEND_IMM, (pair.keys[0], VA + 3, 30), (pair.keys[0], VA + 4090, 50), general_id=0xABCD)
    opcode, _, entry = pair.done(1)
    assert (opcode, entry.byte_count, entry.immediate) == (cqe.RECEIVE_SEND_IMM, 80, 0xABCD)
    assert (entry.srqn_uidx, entry.qpn, entry.wqe_counter) == (0xFFFFFF, pair.b.number, 0)
    assert pair.memory.read(pair.at[1] + 5, 80) == PATTERN[3:33] + PATTERN[4090:4140]
    assert pair.done(0)[:2] == (cqe.REQUESTER, 0)
    assert pair.card.findings() == []


def test_inline_data_and_writes(pair):
    """Mutation: forget the padding behind inline data."""
    pair.send(wqe.RDMA_WRITE, b"inline!", (pair.keys[0], VA, 9), remote=(pair.keys[1], VA + 4093))
    assert pair.memory.read(pair.at[1] + 4093, 16) == b"inline!" + PATTERN[:9]
    pair.receive()
    pair.send(wqe.RDMA_WRITE_IMM, (pair.keys[0], VA, 4), remote=(pair.keys[1], VA), general_id=7)
    opcode, _, entry = pair.done(1)
    assert (opcode, entry.byte_count, entry.immediate) == (cqe.RECEIVE_WRITE_IMM, 4, 7)


def test_a_read_is_scattered(pair):
    """Mutation: exchange source and sink of a read."""
    pair.memory.write(pair.at[1], PATTERN[::-1])
    pair.send(
        wqe.RDMA_READ,
        (pair.keys[0], VA, 10),
        (pair.keys[0], VA + 8192, 5000),
        remote=(pair.keys[1], VA + 100),
    )
    assert pair.memory.read(pair.at[0], 10) == PATTERN[::-1][100:110]
    assert pair.memory.read(pair.at[0] + 8192, 5000) == PATTERN[::-1][110:5110]
    assert pair.done(0)[2].byte_count == 5010


@pytest.mark.parametrize(
    ("opcode", "operands", "after"),
    [(wqe.ATOMIC_FA, (5, 0), 12), (wqe.ATOMIC_CS, (99, 7), 99), (wqe.ATOMIC_CS, (99, 8), 7)],
)
def test_atomics(pair, opcode, operands, after):
    """Mutation: store big endian."""
    pair.memory.write(pair.at[1] + 8, struct.pack("<Q", 7))
    pair.send(opcode, (pair.keys[0], VA, 8), remote=(pair.keys[1], VA + 8), atomic=operands)
    assert pair.done(0)[:2] == (cqe.REQUESTER, 0)
    assert struct.unpack("<Q", pair.memory.read(pair.at[0], 8)) == (7,)
    assert struct.unpack("<Q", pair.memory.read(pair.at[1] + 8, 8)) == (after,)
