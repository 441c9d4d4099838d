"""Atomic writes and flushes, which only an extended queue pair can post."""

from __future__ import annotations

from typing import Any, Callable, Iterator, List

from harness.guest.mm.memory import (
    WORD_BYTES,
    Memory,
    word_offsets,
)
from harness.guest.mm.page_model import PageModel
from harness.values.case import Region

# Send operations flags of the queue pair for each operation.
# Ref: rdma-core libibverbs/verbs.h, enum ibv_qp_create_send_ops_flags
OPERATIONS = {"atomic_write": "IBV_QP_EX_WITH_ATOMIC_WRITE", "flush": "IBV_QP_EX_WITH_FLUSH"}
_VALUE = 0xA70_0000_0000


def queue_pair(context: Any, pd: Any, cq: Any, cap: Any, operation: str) -> Any:
    """Create an RC queue pair that can post the operation."""
    import pyverbs.enums as e
    from pyverbs.qp import QPEx, QPInitAttrEx

    attributes = QPInitAttrEx(
        qp_type=e.IBV_QPT_RC,
        scq=cq,
        rcq=cq,
        cap=cap,
        pd=pd,
        comp_mask=e.IBV_QP_INIT_ATTR_PD | e.IBV_QP_INIT_ATTR_SEND_OPS_FLAGS,
        send_ops_flags=getattr(e, OPERATIONS[operation]),
    )
    return QPEx(context, attributes)


def atomic_write(connection: Any, local: Any, remote: Any) -> List[Callable[[], None]]:
    """Prepare one atomic write a page; the words are in the work requests, not in the local region."""
    key, address = remote.registration.rkey, remote.registration.address

    def one(at: int, value: bytes) -> Callable[[], None]:
        return _posted(connection, lambda queue: queue.wr_atomic_write(key, address + at, value))

    return [one(at, value) for at, value in _words(remote.memory.region)]


def flush(connection: Any, local: Any, remote: Any) -> List[Callable[[], None]]:
    """Prepare one flush of the whole remote region, for global visibility and persistence."""
    import pyverbs.enums as e

    kind = e.IBV_FLUSH_GLOBAL | e.IBV_FLUSH_PERSISTENT
    target = (remote.registration.rkey, remote.registration.address, remote.memory.region.length)
    return [_posted(connection, lambda queue: queue.wr_flush(*target, kind, e.IBV_FLUSH_RANGE))]


def atomic_write_touches(local: PageModel, remote: PageModel, mtu_bytes: int) -> None:
    """Write each remote word, which cannot lie across pages."""
    for at in word_offsets(remote.region):
        remote.access(at, WORD_BYTES, write=True)


def flush_touches(local: PageModel, remote: PageModel, mtu_bytes: int) -> None:
    """Read the whole remote region at once."""
    remote.access(0, remote.region.length, write=False)


def atomic_write_moves(local: Memory, remote: Memory) -> None:
    """Store the words in the remote region."""
    for at, value in _words(remote.region):
        first = remote.first + at
        remote.expected[first : first + WORD_BYTES] = value


def flush_moves(local: Memory, remote: Memory) -> None:
    """Change no byte."""


def _words(region: Region) -> Iterator[Any]:
    for number, at in enumerate(word_offsets(region)):
        yield at, (_VALUE + number).to_bytes(WORD_BYTES, "little")


def _posted(connection: Any, build: Callable[[Any], None]) -> Callable[[], None]:
    def run() -> None:
        import pyverbs.enums as e

        queue = connection.requester
        queue.wr_start()
        queue.wr_flags = e.IBV_SEND_SIGNALED
        build(queue)
        queue.wr_complete()
        connection.wait(1)

    return run
