"""Transfers: the work requests of each operation, its page accesses, and the bytes that it moves.

A `Pattern` has three functions for one operation. `prepare` returns functions that post work requests and wait;
`touches` applies the device's accesses to the two page models; `moves` updates the expected bytes.
"""

from __future__ import annotations

from typing import Any, Callable, Dict, List, NamedTuple

from harness.guest.mm.memory import (
    WORD_BYTES,
    Memory,
    word_offsets,
)
from harness.guest.mm.page_model import PageModel
from harness.guest.rdma import extended
from harness.guest.rdma.registration import Registration

_ADD = 0x0123_4567_89AB_CDEF
_SWAP = 0xFEED_0000_0000_0000
_MASK = (1 << 64) - 1


class Side(NamedTuple):
    """One end of a transfer: its memory, its model, its registration."""

    memory: Memory
    model: PageModel
    registration: Registration


class Pattern(NamedTuple):
    """One operation, as described above."""

    prepare: Callable[[Any, Side, Side], List[Callable[[], None]]]
    touches: Callable[[PageModel, PageModel, int], None]
    moves: Callable[[Memory, Memory], None]
    text: str


def send(connection: Any, local: Side, remote: Side) -> List[Callable[[], None]]:
    """Prepare a receive into the remote region, and a send of the local one."""
    from pyverbs.wr import SGE, RecvWR, SendWR

    length = local.memory.region.length
    receive = RecvWR(num_sge=1, sg=[SGE(remote.registration.address, length, remote.registration.lkey)])
    work = SendWR(
        opcode=_opcode("SEND"),
        num_sge=1,
        sg=[SGE(local.registration.address, length, local.registration.lkey)],
        send_flags=_signaled(),
    )

    def run() -> None:
        connection.responder.post_recv(receive)
        connection.requester.post_send(work)
        connection.wait(2)

    return [run]


def write(connection: Any, local: Side, remote: Side) -> List[Callable[[], None]]:
    """Prepare one RDMA write of the whole region."""
    return [_whole(connection, local, remote, "RDMA_WRITE")]


def read(connection: Any, local: Side, remote: Side) -> List[Callable[[], None]]:
    """Prepare one RDMA read of the whole region."""
    return [_whole(connection, local, remote, "RDMA_READ")]


def compare_swap(connection: Any, local: Side, remote: Side) -> List[Callable[[], None]]:
    """Prepare one compare-and-swap a page, which must swap on even pages and must not on odd ones."""
    return _atomics(connection, local, remote, "ATOMIC_CMP_AND_SWP")


def fetch_add(connection: Any, local: Side, remote: Side) -> List[Callable[[], None]]:
    """Prepare one fetch-and-add a page."""
    return _atomics(connection, local, remote, "ATOMIC_FETCH_AND_ADD")


def push_touches(local: PageModel, remote: PageModel, mtu_bytes: int) -> None:
    """Read the message from the local region, and write it to the remote one."""
    local.transfer(mtu_bytes, write=False)
    remote.transfer(mtu_bytes, write=True)


def pull_touches(local: PageModel, remote: PageModel, mtu_bytes: int) -> None:
    """Read the message from the remote region, and write it to the local one."""
    push_touches(remote, local, mtu_bytes)


def atomic_touches(local: PageModel, remote: PageModel, mtu_bytes: int) -> None:
    """Write each remote word, which cannot lie across pages, then its old value to the local one."""
    for local_at, remote_at in zip(word_offsets(local.region), word_offsets(remote.region)):
        remote.access(remote_at, WORD_BYTES, write=True)
        local.access(local_at, WORD_BYTES, write=True)


def push_moves(local: Memory, remote: Memory) -> None:
    """Copy the local region to the remote one."""
    moved(local, 0, remote, 0, local.region.length)


def moved(source: Memory, at: int, sink: Memory, to: int, length: int) -> None:
    """Copy expected bytes of the region of `source`, from `at` on, to that of `sink`, from `to` on."""
    source_at, sink_at = source.first + at, sink.first + to
    sink.expected[sink_at : sink_at + length] = source.expected[source_at : source_at + length]


def pull_moves(local: Memory, remote: Memory) -> None:
    """Copy the remote region to the local one."""
    push_moves(remote, local)


def swap_moves(local: Memory, remote: Memory) -> None:
    """Swap the remote words of even pages; the old values of all go to the local ones."""
    for number, old, local_at, remote_at in _words(local, remote):
        local.expected[local_at : local_at + WORD_BYTES] = old
        if number % 2 == 0:
            remote.expected[remote_at : remote_at + WORD_BYTES] = (_SWAP + number).to_bytes(8, "little")


def add_moves(local: Memory, remote: Memory) -> None:
    """Add to the remote words; their old values go to the local ones."""
    for number, old, local_at, remote_at in _words(local, remote):
        local.expected[local_at : local_at + WORD_BYTES] = old
        new = int.from_bytes(old, "little") + _ADD + number & _MASK
        remote.expected[remote_at : remote_at + WORD_BYTES] = new.to_bytes(8, "little")


PATTERNS: Dict[str, Pattern] = {
    "send": Pattern(send, push_touches, push_moves, "the whole region is read locally and written remotely"),
    "write": Pattern(
        write, push_touches, push_moves, "the whole region is read locally and written remotely"
    ),
    "read": Pattern(read, pull_touches, pull_moves, "the whole region is read remotely and written locally"),
    "compare_swap": Pattern(compare_swap, atomic_touches, swap_moves, "each atomic writes both words"),
    "fetch_add": Pattern(fetch_add, atomic_touches, add_moves, "each atomic writes both words"),
    "atomic_write": Pattern(
        extended.atomic_write,
        extended.atomic_write_touches,
        extended.atomic_write_moves,
        "each writes the remote word",
    ),
    "flush": Pattern(
        extended.flush,
        extended.flush_touches,
        extended.flush_moves,
        "the whole region is read remotely, and no byte changes",
    ),
}


def _words(local: Memory, remote: Memory) -> Any:
    pairs = zip(word_offsets(local.region), word_offsets(remote.region))
    for number, (local_offset, remote_offset) in enumerate(pairs):
        at = remote.first + remote_offset
        yield number, bytes(remote.expected[at : at + WORD_BYTES]), local.first + local_offset, at


def _whole(connection: Any, local: Side, remote: Side, opcode: str) -> Callable[[], None]:
    return one_sided(connection, local.registration, remote.registration, local.memory.region.length, opcode)


def one_sided(
    connection: Any, local: Registration, remote: Registration, length: int, opcode: str
) -> Callable[[], None]:
    """Prepare an RDMA_WRITE or RDMA_READ of `length` bytes from the start of both regions."""
    work = one_sided_work(local, remote, length, opcode)

    def run() -> None:
        connection.requester.post_send(work)
        connection.wait(1)

    return run


def one_sided_work(local: Registration, remote: Registration, length: int, opcode: str) -> Any:
    """Build the work request of an RDMA_WRITE or RDMA_READ of `length` bytes from the start of both regions."""
    from pyverbs.wr import SGE, SendWR

    element = SGE(local.address, length, local.lkey)
    work = SendWR(opcode=_opcode(opcode), num_sge=1, sg=[element], send_flags=_signaled())
    work.set_wr_rdma(remote.rkey, remote.address)
    return work


def _atomics(connection: Any, local: Side, remote: Side, opcode: str) -> List[Callable[[], None]]:
    from pyverbs.wr import SGE, SendWR

    def one(number: int, old: bytes, local_at: int, remote_at: int) -> Callable[[], None]:
        result = local.registration.address + local_at - local.memory.first
        element = SGE(result, WORD_BYTES, local.registration.lkey)
        work = SendWR(opcode=_opcode(opcode), num_sge=1, sg=[element], send_flags=_signaled())
        address = remote.registration.address + remote_at - remote.memory.first
        if opcode == "ATOMIC_FETCH_AND_ADD":
            work.set_wr_atomic(remote.registration.rkey, address, _ADD + number)
        else:
            compare = int.from_bytes(old, "little")
            work.set_wr_atomic(
                remote.registration.rkey, address, compare if number % 2 == 0 else compare ^ 1, _SWAP + number
            )

        def run() -> None:
            connection.requester.post_send(work)
            connection.wait(1)

        return run

    return [one(*word) for word in _words(local.memory, remote.memory)]


def _opcode(name: str) -> Any:
    import pyverbs.enums as e

    return getattr(e, f"IBV_WR_{name}")


def _signaled() -> Any:
    import pyverbs.enums as e

    return e.IBV_SEND_SIGNALED
