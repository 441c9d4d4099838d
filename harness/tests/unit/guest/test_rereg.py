"""ibv_rereg_mr(): the command, and which refusals are accepted."""

import errno
import struct
from types import SimpleNamespace

import pytest

from harness.guest.errors import WorkFailed
from harness.guest.mm.memory import Memory
from harness.guest.rdma.registration import Registration
from harness.guest.scenarios import rereg
from harness.values.case import Region


@pytest.fixture
def pair():
    memory = Memory(Region(5 * 4096), 2)
    yield SimpleNamespace(
        memories=[None, memory],
        registrations=[None, Registration(3, 0x11, 0x22, 0x5000)],
        connection=SimpleNamespace(pd=SimpleNamespace(handle=7), context=SimpleNamespace(cmd_fd=-1)),
    )
    memory.close()


def test_command_has_the_old_handle(pair, monkeypatch):
    """Mutation: send the key; return the new address although only the rights change."""
    sent = []
    monkeypatch.setattr(rereg.os, "write", lambda fd, data: sent.append(data))
    memory = pair.memories[1]
    result = rereg.call(pair, rereg.ACCESS, memory, 0x4F)
    fields = struct.unpack("=IHHQIIQQQII", sent[0])
    assert fields[:3] == (11, len(sent[0]) // 4, 2)
    assert fields[4:] == (3, rereg.ACCESS, memory.start, 5 * 4096, memory.start, 7, 0x4F)
    assert result == Registration(3, 0, 0, 0x5000)
    assert rereg.call(pair, rereg.TRANSLATION, memory, 0x4F).address == memory.start
    rereg.call(pair, rereg.PD, memory, 0x4F, 9)
    assert struct.unpack("=IHHQIIQQQII", sent[2])[9] == 9


@pytest.mark.parametrize(
    ("device", "change", "number", "accepted"),
    [
        ("soft-roce", rereg.SAME_PAGING[1], errno.EOPNOTSUPP, True),
        ("soft-roce", rereg.SAME_PAGING[1], errno.EINVAL, False),
        ("soft-roce", rereg.SAME_PAGING[0], errno.EOPNOTSUPP, False),
        ("soft-roce", rereg.TOGGLED_PAGING[0], errno.EINVAL, True),
        ("mlx5_0", rereg.SAME_PAGING[1], errno.EOPNOTSUPP, False),
    ],
)
def test_only_known_unsupported_changes_may_be_refused(device, change, number, accepted):
    """Mutation: accept any errno; any change."""
    if accepted:
        rereg.check_refusal(change, device, OSError(number, "no"))
    else:
        with pytest.raises(WorkFailed, match="refused: "):
            rereg.check_refusal(change, device, OSError(number, "no"))


@pytest.mark.parametrize(
    ("status", "present", "problem"),
    [(rereg.REFUSED, 0, ""), ("", 8, "success and 8 pages"), (rereg.REFUSED, 1, "1 pages in memory")],
)
def test_old_protection_domain_is_refused_and_freed(monkeypatch, pair, status, present, problem):
    """Mutations: post on a queue pair of the new one; accept present pages; keep the old one."""
    done = []
    monkeypatch.setattr(rereg.pagemap, "present", lambda start, pages: present)
    monkeypatch.setattr(rereg, "compare", lambda memories: done.append("compared"))
    old = SimpleNamespace(
        requester=SimpleNamespace(post_send=done.append),
        end=lambda: status,
        close=lambda: done.append("closed"),
    )
    moved, new = pair, SimpleNamespace()
    moved.connection = old
    moved.memories[0] = moved.memories[1]
    moved.work = lambda: "write"
    moved.invalidate = lambda end: done.append("invalidated")
    moved.register_again = lambda end, odp: done.append(moved.connection is new)
    if problem:
        with pytest.raises(WorkFailed, match=problem):
            rereg._move(moved, new, absent=True)
        return
    rereg._move(moved, new, absent=True)
    assert done == ["invalidated", "write", "compared", True, "closed"] and moved.connection is new


@pytest.mark.parametrize("status", ["", "IBV_WC_REM_OP_ERR", rereg.REFUSED])
def test_removed_right_is_refused(status):
    """Mutation: only write, which is still allowed."""
    posted = []
    connection = SimpleNamespace(requester=SimpleNamespace(post_send=posted.append), end=lambda: status)
    changed = SimpleNamespace(connection=connection, work=lambda opcode: opcode)
    if status == rereg.REFUSED:
        rereg._check_removed(changed)
    else:
        with pytest.raises(WorkFailed, match=f"ended with {status or 'success'}"):
            rereg._check_removed(changed)
    assert posted == ["RDMA_READ"]
