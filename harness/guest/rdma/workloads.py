"""One function per traffic pattern: what is posted, what it touches, and what memory holds afterwards.

A `Pattern` names the three for one operation. `post` posts the whole round and waits for it; `touches` moves
the two page models as the driver does; `moves` does to the expected bytes what the operation promises.
"""

from __future__ import annotations

from typing import Any, Callable, Dict, List, NamedTuple

from harness.guest.mm.memory import (
    WORD_BYTES,
    Memory,
    word_spots,
)
from harness.guest.mm.page_model import PageModel
from harness.guest.rdma import extended
from harness.guest.rdma.registration import Registration

_ADD = 0x0123_4567_89AB_CDEF
_SWAP = 0xFEED_0000_0000_0000
_MASK = (1 << 64) - 1


class Side(NamedTuple):
    """One end of a transfer: its memory, its model, and how the device knows it."""

    memory: Memory
    model: PageModel
    registration: Registration


class Pattern(NamedTuple):
    """One operation; see the module."""

    prepare: Callable[[Any, Side, Side], List[Callable[[], None]]]
    touches: Callable[[PageModel, PageModel, int], None]
    moves: Callable[[Memory, Memory], None]
    text: str


def send(connection: Any, local: Side, remote: Side) -> List[Callable[[], None]]:
    """A receive over the remote region, then a send of the local one."""
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
    """One RDMA write of the whole region."""
    return [_whole(connection, local, remote, "RDMA_WRITE")]


def read(connection: Any, local: Side, remote: Side) -> List[Callable[[], None]]:
    """One RDMA read of the whole region."""
    return [_whole(connection, local, remote, "RDMA_READ")]


def compare_swap(connection: Any, local: Side, remote: Side) -> List[Callable[[], None]]:
    """One compare-and-swap a page, that must swap on even pages and must not on odd ones."""
    return _atomics(connection, local, remote, "ATOMIC_CMP_AND_SWP")


def fetch_add(connection: Any, local: Side, remote: Side) -> List[Callable[[], None]]:
    """One fetch-and-add a page."""
    return _atomics(connection, local, remote, "ATOMIC_FETCH_AND_ADD")


def push_touches(local: PageModel, remote: PageModel, mtu_bytes: int) -> None:
    """The message is read from the local region and written to the remote one."""
    local.transfer(mtu_bytes, write=False)
    remote.transfer(mtu_bytes, write=True)


def pull_touches(local: PageModel, remote: PageModel, mtu_bytes: int) -> None:
    """The message is read from the remote region and written to the local one."""
    push_touches(remote, local, mtu_bytes)


def atomic_touches(local: PageModel, remote: PageModel, mtu_bytes: int) -> None:
    """Each atomic writes the remote word, which cannot lie across pages, and brings its old value to the local
    one.
    """
    for here, there in zip(word_spots(local.region), word_spots(remote.region)):
        remote.access(there, WORD_BYTES, write=True)
        local.access(here, WORD_BYTES, write=True)


def push_moves(local: Memory, remote: Memory) -> None:
    """The remote region holds what the local one does."""
    moved(local, 0, remote, 0, local.region.length)


def moved(source: Memory, at: int, sink: Memory, to: int, length: int) -> None:
    """The region of `sink` holds from its byte `to` on what that of `source` does from `at` on."""
    here, there = source.first + at, sink.first + to
    sink.expected[there : there + length] = source.expected[here : here + length]


def pull_moves(local: Memory, remote: Memory) -> None:
    """The local region holds what the remote one does."""
    push_moves(remote, local)


def swap_moves(local: Memory, remote: Memory) -> None:
    """The words of even pages are swapped; all old values are local."""
    for number, old, here, there in _words(local, remote):
        local.expected[here : here + WORD_BYTES] = old
        if number % 2 == 0:
            remote.expected[there : there + WORD_BYTES] = (_SWAP + number).to_bytes(8, "little")


def add_moves(local: Memory, remote: Memory) -> None:
    """The words are added to; all old values are local."""
    for number, old, here, there in _words(local, remote):
        local.expected[here : here + WORD_BYTES] = old
        new = int.from_bytes(old, "little") + _ADD + number & _MASK
        remote.expected[there : there + WORD_BYTES] = new.to_bytes(8, "little")


PATTERNS: Dict[str, Pattern] = {
    "send": Pattern(send, push_touches, push_moves, "all of it is read here and written there"),
    "write": Pattern(write, push_touches, push_moves, "all of it is read here and written there"),
    "read": Pattern(read, pull_touches, pull_moves, "all of it is read there and written here"),
    "compare_swap": Pattern(compare_swap, atomic_touches, swap_moves, "each atomic writes both words"),
    "fetch_add": Pattern(fetch_add, atomic_touches, add_moves, "each atomic writes both words"),
    "atomic_write": Pattern(
        extended.atomic_write,
        extended.atomic_write_touches,
        extended.atomic_write_moves,
        "each writes the remote word",
    ),
    "flush": Pattern(
        extended.flush, extended.flush_touches, extended.flush_moves, "all of it is read there, and stays"
    ),
}


def _words(local: Memory, remote: Memory) -> Any:
    pairs = zip(word_spots(local.region), word_spots(remote.region))
    for number, (here, there) in enumerate(pairs):
        at = remote.first + there
        yield number, bytes(remote.expected[at : at + WORD_BYTES]), local.first + here, at


def _whole(connection: Any, local: Side, remote: Side, opcode: str) -> Callable[[], None]:
    return one_sided(connection, local.registration, remote.registration, local.memory.region.length, opcode)


def one_sided(
    connection: Any, here: Registration, there: Registration, length: int, opcode: str
) -> Callable[[], None]:
    """Posts an RDMA_WRITE or RDMA_READ of `length` bytes from the beginning of both regions on, and waits for it."""
    work = one_sided_work(here, there, length, opcode)

    def run() -> None:
        connection.requester.post_send(work)
        connection.wait(1)

    return run


def one_sided_work(here: Registration, there: Registration, length: int, opcode: str) -> Any:
    """The work request of an RDMA_WRITE or RDMA_READ of `length` bytes from the beginning of both regions on."""
    from pyverbs.wr import SGE, SendWR

    element = SGE(here.address, length, here.lkey)
    work = SendWR(opcode=_opcode(opcode), num_sge=1, sg=[element], send_flags=_signaled())
    work.set_wr_rdma(there.rkey, there.address)
    return work


def _atomics(connection: Any, local: Side, remote: Side, opcode: str) -> List[Callable[[], None]]:
    from pyverbs.wr import SGE, SendWR

    def one(number: int, old: bytes, here: int, there: int) -> Callable[[], None]:
        landing = local.registration.address + here - local.memory.first
        element = SGE(landing, WORD_BYTES, local.registration.lkey)
        work = SendWR(opcode=_opcode(opcode), num_sge=1, sg=[element], send_flags=_signaled())
        address = remote.registration.address + there - remote.memory.first
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
