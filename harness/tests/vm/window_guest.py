"""In a machine: RDMA writes through a memory window over on-demand memory, whose pages are lost before each.

Prints how each write ended ("" is success) and how many bytes are wrong.
"""

import ctypes
import mmap
import sys

import pyverbs.enums as e
from pyverbs.mr import MR, MW, MWBind, MWBindInfo
from pyverbs.wr import SGE, SendWR

from harness.guest.rdma.connection import Connection

PAGES, FIRST, COUNT, ROUNDS = 8, 1, 4, 3
RIGHTS = e.IBV_ACCESS_LOCAL_WRITE | e.IBV_ACCESS_REMOTE_WRITE | e.IBV_ACCESS_REMOTE_READ


def address(memory):
    return ctypes.addressof(ctypes.c_char.from_buffer(memory))


def main(device):
    page, length = mmap.PAGESIZE, COUNT * mmap.PAGESIZE
    connection = Connection(device, 1024, 20)
    local, remote = (mmap.mmap(-1, PAGES * page, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS) for _ in range(2))
    local_mr = MR(connection.pd, PAGES * page, RIGHTS, address=address(local))
    on_demand = RIGHTS | e.IBV_ACCESS_MW_BIND | e.IBV_ACCESS_ON_DEMAND
    remote_mr = MR(connection.pd, PAGES * page, on_demand, address=address(remote))
    window = MW(connection.pd, e.IBV_MW_TYPE_1)
    start = address(remote) + FIRST * page
    rights = e.IBV_ACCESS_REMOTE_WRITE | e.IBV_ACCESS_REMOTE_READ
    connection.responder.bind_mw(
        window, MWBind(MWBindInfo(remote_mr, start, length, rights), e.IBV_SEND_SIGNALED)
    )
    print(f"bind: {connection.end()!r}")
    for turn in range(1, ROUNDS + 1):
        local[:length] = bytes((turn + 7 * at) % 251 for at in range(length))
        remote.madvise(mmap.MADV_DONTNEED)
        segment = SGE(address(local), length, local_mr.lkey)
        work = SendWR(opcode=e.IBV_WR_RDMA_WRITE, num_sge=1, sg=[segment], send_flags=e.IBV_SEND_SIGNALED)
        work.set_wr_rdma(window.rkey, start)
        connection.requester.post_send(work)
        ended = connection.end()
        expected = bytes(FIRST * page) + local[:length] + bytes((PAGES - FIRST - COUNT) * page)
        wrong = sum(one != other for one, other in zip(remote[:], expected, strict=True))
        print(f"write {turn}: {ended!r}, {wrong} bytes wrong", flush=True)
        if ended:
            break


main(sys.argv[1])
