"""Pieces of a region, by queue pair."""

from types import SimpleNamespace

import pytest

from harness.guest.mm.libc import PAGE_BYTES
from harness.guest.rdma.registration import Registration
from harness.guest.scenarios import multi_qp
from harness.values.case import Region


@pytest.mark.parametrize("length", [1, PAGE_BYTES, 53 * PAGE_BYTES, 53 * PAGE_BYTES + 7])
def test_interleaved_pieces_cover_every_byte_once(length):
    """Mutation: begin every queue at the first page."""
    pieces = sorted(piece for own in multi_qp.interleaved(length) for piece in own)
    assert len(multi_qp.interleaved(length)) == multi_qp.QUEUES
    ends = [at + size for at, size in pieces]
    assert [at for at, _ in pieces] == [0, *ends[:-1]] and ends[-1] == length


def test_reads_move_the_remote_bytes_to_the_local_end(monkeypatch):
    """Mutation: let a read move the local bytes to the remote end."""
    posted = []
    monkeypatch.setattr(multi_qp.workloads, "one_sided_work", lambda *work: work)
    queue = SimpleNamespace(
        requester=SimpleNamespace(post_send=lambda work: posted.append(work[2:])), wait=lambda count: None
    )
    memories = [SimpleNamespace(first=0, region=Region(8), expected=bytearray([end] * 8)) for end in (1, 2)]
    key = Registration(0, 0, 0, 0)
    pair = SimpleNamespace(registrations=[key, key], memories=memories)
    multi_qp._all_at_once(pair, [[(0, 4), (4, 4)]], [queue], "RDMA_READ")
    assert posted == [(4, "RDMA_READ"), (4, "RDMA_READ")]
    assert memories[0].expected == memories[1].expected == bytearray([2] * 8)
